// Calls methods of a built scalingo.js: one JSON request a line on stdin, one JSON answer a line on stdout.
const readline = require("node:readline");
const [bundle, url] = process.argv.slice(2);
const { Client } = require(bundle);

// What it logs must not come between the answers.
console.log = console.error;

async function answer({ token, target, method, args }) {
  const client = new Client(token, { apiUrl: url, authApiUrl: url });
  let object = client;
  for (const [name, ...parameters] of target) {
    object = typeof object[name] === "function" ? object[name](...parameters) : object[name];
  }
  try {
    return { value: (await object[method](...args)) ?? null };
  } catch (problem) {
    return { status: problem.status ?? problem.response?.status ?? null, message: String(problem.message) };
  }
}

readline.createInterface({ input: process.stdin }).on("line", async (line) => {
  process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + "\n");
});
