// Loaded before SourceCred's command: what it asks by HTTPS goes to a server on this machine.

const http = require("http");
const https = require("https");

https.request = ({method, path, headers}, callback) =>
  http.request({method, path, headers, host: "127.0.0.1", port: Number(process.env.LOOPBACK_PORT)}, callback);
