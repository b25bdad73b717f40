"use strict";
// `import` of packages in NODE_PATH, where layers are: Lambda's Node does that, Node itself only for
// `require`. The hook is installed only if there is something to find.

const fs = require("node:fs");
const path = require("node:path");
const nodeModule = require("node:module");
const { pathToFileURL } = require("node:url");

/** Folders of NODE_PATH that a function's own imports do not find anyway. */
function folders() {
  const own = [process.env.LAMBDA_TASK_ROOT, process.env.LAMBDA_RUNTIME_DIR];
  return process.env.NODE_PATH.split(":").filter(
    (folder) => folder && !own.includes(folder) && fs.existsSync(folder),
  );
}

/** What to try for a package that was not found: `[specifier, parentURL]`, in order. */
function* attempts(specifier, found) {
  for (const folder of found) {
    if (path.basename(folder) === "node_modules") {
      yield [specifier, pathToFileURL(path.join(folder, "../_")).href];
    } else {
      try {
        const file = nodeModule.createRequire(path.join(folder, "_")).resolve(`./${specifier}`);
        yield [pathToFileURL(file).href];
      } catch {
        // Not here.
      }
    }
  }
}

/** True if an import failed that NODE_PATH may help. */
function isMissingPackage(specifier, error) {
  return error?.code === "ERR_MODULE_NOT_FOUND" && !/^(\.{0,2}\/|[a-z]+:)/.test(specifier);
}

function resolver(found) {
  return (specifier, context, next) => {
    try {
      return next(specifier, context);
    } catch (error) {
      if (!isMissingPackage(specifier, error)) throw error;
      for (const [other, parentURL = context.parentURL] of attempts(specifier, found)) {
        try {
          return next(other, { ...context, parentURL });
        } catch {
          // Nor here.
        }
      }
      throw error;
    }
  };
}

/** Lets `import` look where `require` looks. */
function followNodePath() {
  const found = folders();
  if (found.length === 0) return;
  if (nodeModule.registerHooks) {
    nodeModule.registerHooks({ resolve: resolver(found) });
  } else {
    // Older Nodes run such hooks in a thread.
    nodeModule.register?.(pathToFileURL(path.join(__dirname, "hooks.mjs")).href, { data: found });
  }
}

module.exports = { followNodePath, attempts, isMissingPackage };
