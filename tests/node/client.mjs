// Runs a function on a real client of Lambda's Runtime API, with a small Runtime API that has a
// list of events and remembers what it is told.
import { spawn } from "node:child_process";
import http from "node:http";
import { environment, within } from "./host.mjs";

/**
 * Runs `events` through the client that `argv` starts. The result has an answer for each event
 * that got one, the log, and how the process ended.
 */
export async function runOnClient(argv, { handler, folder, events, env = {}, told = () => ({}) }) {
  const answers = [];
  let sent = 0;
  let allDone;
  const done = new Promise((resolve) => (allDone = resolve));
  let isAsking = false;
  const look = () => isAsking && answers.length === events.length && allDone();
  const server = http.createServer((request, response) => {
    if (request.url.endsWith("/invocation/next")) {
      if (sent === events.length) {
        isAsking = true;
        look();
        return; // Held: there is no more.
      }
      const id = ++sent;
      const { deadline = Date.now() + 60_000, arn = "arn:aws:lambda:board:1:function:f", trace, client, identity } = told(id);
      const headers = {
        "Content-Type": "application/json",
        "Lambda-Runtime-Aws-Request-Id": `request-${id}`,
        "Lambda-Runtime-Deadline-Ms": String(deadline),
        "Lambda-Runtime-Invoked-Function-Arn": arn,
      };
      if (trace) headers["Lambda-Runtime-Trace-Id"] = trace;
      if (client) headers["Lambda-Runtime-Client-Context"] = client;
      if (identity) headers["Lambda-Runtime-Cognito-Identity"] = identity;
      headers["Lambda-Runtime-Trace-Id"] ??= "";
      response.writeHead(200, headers);
      response.end(events[id - 1]);
      return;
    }
    const chunks = [];
    request.on("data", (chunk) => chunks.push(chunk));
    request.on("end", () => {
      const id = /invocation\/request-(\d+)\//.exec(request.url)?.[1];
      let payload = Buffer.concat(chunks).toString();
      let name = request.url.endsWith("/response") ? "Reply" : id ? "Error" : "InitError";
      let streamed = {};
      if (request.headers["lambda-runtime-function-response-mode"] === "streaming") {
        streamed = { contentType: request.headers["content-type"] };
      }
      const trailer = request.trailers["lambda-runtime-function-error-body"];
      if (trailer) {
        name = "Error";
        streamed.begun = payload;
        payload = Buffer.from(trailer, "base64").toString();
      }
      answers.push({ name, id: id && Number(id), payload, ...streamed });
      response.writeHead(202, { "Content-Type": "application/json" });
      response.end('{"status":"OK"}\n');
      look();
    });
    request.on("error", () => {});
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  const api = `127.0.0.1:${server.address().port}`;
  const child = spawn(process.execPath, argv, {
    cwd: folder,
    env: environment(folder, handler, { ...env, AWS_LAMBDA_RUNTIME_API: api }),
    stdio: ["ignore", "pipe", "pipe"],
  });
  let log = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (data) => (log += data));
  child.stderr.setEncoding("utf8").on("data", (data) => (stderr += data));
  const exited = new Promise((resolve) => child.on("close", (status, signal) => resolve(signal ?? status)));
  try {
    const end = await within(Promise.race([done, exited]), `end of the client:\n${log}${stderr}`);
    if (end === undefined) child.kill("SIGKILL");
    const status = await within(exited, "exit");
    return { answers, log, stderr, exit: end === undefined ? null : status };
  } finally {
    child.kill("SIGKILL");
    server.closeAllConnections();
    server.close();
  }
}
