"use strict";
// Where a Node worker starts. It greets the host, lets Node keep compiled code, and hands over to
// main.cjs. Small because it is the one file that Node compiles anew at every start: the cache
// begins to work after this one. CommonJS because Node's loader for ES modules, which functions in
// CommonJS never need, would cost 3 to 5 ms before the first line.

require("./wire.cjs").hello();
if (process.env.HOB_CACHE) require("node:module").enableCompileCache?.(process.env.HOB_CACHE);
require("./main.cjs");
