// node:http and node:https without an import statement: an ES import reads every export of a module, and reading
// http's loads undici, which costs each daemon 45 ms of start and 16 MB of memory (measured, Node 26) for nothing.

export const http = process.getBuiltinModule('node:http')
export const https = process.getBuiltinModule('node:https')
