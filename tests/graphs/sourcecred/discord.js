// Runs the Discord plugin of the installed SourceCred, all of it, against a Discord that is made up.
//
//   node discord.js <folder of the npm tree> <in.json> <out.json>
//
// in: {"config": [...], "api": {...}}, out: {"graph", "declaration", "identities"}
//
// `sourcecred load` asks discordapp.com; here that leads to a server of this process (to_loopback.js), so that no part
// of the plugin (its fetcher, its mirror's tables, its rules) is replaced.

const {spawn} = require("child_process");
const fs = require("fs");
const http = require("http");
const os = require("os");
const path = require("path");

const tree = path.resolve(process.argv[2]);
const out = path.resolve(process.argv[4]);
const {sourcecred} = require(path.join(tree, "node_modules", "sourcecred"));
const {config, api} = JSON.parse(fs.readFileSync(process.argv[3], "utf8"));
const guild = config[0].guildId;

function answer(url) {
  const {pathname, searchParams} = new URL(url, "http://discord.invalid");
  const parts = pathname.split("/").slice(2).map(decodeURIComponent);
  const limit = Number(searchParams.get("limit"));
  const after = BigInt(searchParams.get("after") || 0);
  if (parts[0] === "users") return [{id: guild, name: "town", permissions: 0}];
  if (parts[2] === "channels") return api.channels;
  if (parts[2] === "members") {
    const members = api.members.filter((member) => BigInt(member.user.id) > after);
    return members.sort((a, b) => (BigInt(a.user.id) < BigInt(b.user.id) ? -1 : 1)).slice(0, limit);
  }
  const messages = api.messages.filter((message) => message.channel_id === parts[1]);
  if (parts.length === 3) {
    const before = searchParams.get("before");
    const older = before ? messages.filter((message) => BigInt(message.id) < BigInt(before)) : messages;
    return older.sort((a, b) => (BigInt(a.id) > BigInt(b.id) ? -1 : 1)).slice(0, limit);
  }
  const users = (api.reactions[parts[3]] || {})[parts[5]] || [];
  return users.filter((id) => BigInt(id) > after).slice(0, limit).map((id) => ({id}));
}

const server = http.createServer((request, response) => {
  response.setHeader("content-type", "application/json");
  response.end(JSON.stringify(answer(request.url)));
});

const reporter = {start: () => {}, finish: () => {}};

function load(folder, port) {
  const cli = path.join(tree, "node_modules", "sourcecred", "bin", "sourcecred.js");
  const child = spawn(process.execPath, ["-r", path.join(__dirname, "to_loopback.js"), cli, "load"], {
    cwd: folder,
    env: {...process.env, SOURCECRED_DISCORD_TOKEN: "made-up", LOOPBACK_PORT: String(port)},
    stdio: ["ignore", 2, 2],
  });
  return new Promise((resolve, reject) =>
    child.on("exit", (code) => (code === 0 ? resolve() : reject(new Error(`sourcecred load: ${code}`))))
  );
}

async function main() {
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), "metagov-sourcecred-"));
  process.chdir(folder);
  try {
    const plugin = path.join("config", "plugins", "sourcecred", "discord");
    fs.mkdirSync(plugin, {recursive: true});
    fs.mkdirSync("data");
    fs.writeFileSync("sourcecred.json", JSON.stringify({bundledPlugins: ["sourcecred/discord"]}));
    fs.writeFileSync(path.join(plugin, "config.json"), JSON.stringify(config));
    fs.writeFileSync(path.join("data", "ledger.json"), "");
    await load(folder, server.address().port);
    const {plugins} = await new sourcecred.instance.LocalInstance(folder).readGraphInput();
    const [{plugin: discord, directoryContext}] = plugins;
    const graph = await discord.graph(directoryContext, {addressFromUrl: () => undefined}, reporter);
    const made = {
      graph: sourcecred.core.weightedGraph.toJSON(graph),
      declaration: await discord.declaration(),
      identities: await discord.identities(directoryContext, reporter),
    };
    fs.writeFileSync(out, JSON.stringify(made));
  } finally {
    process.chdir(os.tmpdir());
    fs.rmSync(folder, {recursive: true});
    server.close();
  }
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
