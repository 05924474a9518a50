// A governance driver without dependencies: puts a community, rolls a die, lets a vote be decided by lot, and waits to
// be told. Start the gateway (`make run`), then `node driver.mjs`. Settings: METAGOV_URL, METAGOV_API_KEY and
// METAGOV_SIGNING_SECRET; without them those of the gateway whose data is in ./.metagov.

import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import process from "node:process";
import { verify } from "./verify.mjs";

const COMMUNITY = "node-example";
const DEV_FILE = ".metagov/dev.json";
const PATIENCE_SECONDS = 60;
const COLOURED = process.stdout.isTTY && !process.env.NO_COLOR;

/** Something the person at the keyboard can mend. */
class Problem extends Error {}

/** The story of the README. */
async function main() {
  const inbox = await listen(setting("signing_secret"));
  try {
    await call("PUT", `/api/internal/community/${COMMUNITY}`, {
      readable_name: "Node example",
      plugins: [{ name: "randomness", config: { default_low: 1, default_high: 6 } }],
    });
    say(`community ${bold(COMMUNITY)} has the plugin randomness`);

    const rolled = await call("POST", "/api/action/randomness.random-int", { parameters: {} });
    say(`the die shows ${bold(rolled.value)}`);

    const started = await call("POST", "/api/internal/process/randomness.delayed-stochastic-vote", {
      options: ["apple tree", "pear tree", "cherry tree"],
      delay: 0.03,
      callback_url: inbox.url,
    });
    say(`the vote ${bold(started.id)} is ${started.status}; waiting for its callback …`);

    const finished = await inbox.completed(started.id);
    say(`callback received, signature verified: ${finished.status}`);
    say(`the winner is ${bold(finished.outcome.winner)}`);
  } finally {
    inbox.close();
  }
}

/** METAGOV_<NAME>, or what the running gateway has written into its data folder. */
function setting(name) {
  const variable = `METAGOV_${name.toUpperCase()}`;
  if (process.env[variable]) return process.env[variable];
  try {
    const kept = JSON.parse(readFileSync(DEV_FILE, "utf8"))[name];
    if (kept) return kept;
  } catch {
    // No such file: the same mend as for a file without the value.
  }
  throw new Problem(`set ${variable}, or start \`make run\` and come back to its folder`);
}

/** One request; the gateway's own words when it refuses. */
async function call(method, path, body) {
  const url = new URL(path, setting("url"));
  const headers = {
    authorization: `Bearer ${setting("api_key")}`,
    "content-type": "application/json",
    "x-metagov-community": COMMUNITY,
  };
  let answer;
  try {
    answer = await fetch(url, { method, headers, body: JSON.stringify(body), signal: AbortSignal.timeout(20_000) });
  } catch {
    throw new Problem(`the gateway does not answer at ${url.origin}: start it with \`make run\``);
  }
  const result = await answer.json();
  if (!answer.ok) throw new Problem(`${method} ${path}: ${answer.status}, ${result.detail}`);
  return result;
}

/** A little HTTP server of our own: its URL, and a promise of a process's genuine callback. */
async function listen(secret) {
  const arrived = new Map();
  let wake = () => {};
  const server = createServer(async (request, response) => {
    const chunks = [];
    for await (const chunk of request) chunks.push(chunk);
    try {
      const finished = verify(secret, request.headers, Buffer.concat(chunks));
      if (finished.status === "completed") arrived.set(finished.id, finished);
      response.writeHead(204).end();
      wake();
    } catch {
      response.writeHead(401).end();
    }
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${server.address().port}/finished`,
    close: () => {
      server.close();
      server.closeAllConnections();
    },
    completed: (id) =>
      new Promise((resolve, reject) => {
        const late = () => reject(new Problem(`no genuine callback within ${PATIENCE_SECONDS} seconds`));
        const timer = setTimeout(late, PATIENCE_SECONDS * 1000);
        wake = () => {
          if (!arrived.has(id)) return;
          clearTimeout(timer);
          resolve(arrived.get(id));
        };
        wake();
      }),
  };
}

const say = (text) => console.log(COLOURED ? `\x1b[32m✓\x1b[0m ${text}` : `✓ ${text}`);
const bold = (value) => (COLOURED ? `\x1b[1m${value}\x1b[0m` : `${value}`);

try {
  await main();
} catch (problem) {
  if (!(problem instanceof Problem)) throw problem;
  console.error(`✗ ${problem.message}`);
  process.exitCode = 1;
}
