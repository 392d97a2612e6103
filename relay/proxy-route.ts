// What a client of the proxy asks for: `NODE:PORT` for a port of the node itself, `TARGET.NODE:PORT` for what the node's
// operator declared on its agent, by its name (whatever the port) or by its host and port.

import { isIP } from 'node:net'

export type ProxyTarget = {
  readonly node: string
  /** The node itself, or the target, in the words of whoever asks. */
  readonly host: string
  readonly port: number
}

/**
 * @param nodeOf the node that a name or an address stands for.
 * @returns undefined where there is no such node. Of two nodes that it could be, the one with the longer name.
 */
export function proxyTargetOf(
  asked: string,
  port: number,
  nodeOf: (host: string) => string | undefined,
): ProxyTarget | undefined {
  const itself = nodeOf(asked)
  if (itself !== undefined) return { node: itself, host: itself, port }
  if (isIP(asked) !== 0) return undefined
  for (let dot = asked.indexOf('.'); dot !== -1; dot = asked.indexOf('.', dot + 1)) {
    const [host, name] = [asked.slice(0, dot), asked.slice(dot + 1)]
    const node = isIP(name) === 0 ? nodeOf(name) : undefined
    if (node !== undefined && host !== '') return { node, host, port }
  }
  return undefined
}
