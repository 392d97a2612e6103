// `fulmar forward`: a port here that leads to what a node's operator declared, so that a web console at the edge opens in a
// browser in the cloud.

import { isIP } from 'node:net'
import { formatSocketAddress } from '../lib/address.ts'
import { describeOptions, parseOptions } from '../lib/config.ts'
import { EX_USAGE, runUntilSignal } from '../lib/net/lifetime.ts'
import { runForward } from './forward-server.ts'
import { credentialsOf, CREDENTIAL_OPTIONS } from './relay-credentials.ts'

const USAGE = 'fulmar forward NODE/TARGET [[ADDRESS:]PORT] [--kubeconfig FILE]'
const ABOUT = `TARGET is a name from --ops-targets of the node's agent, HOST:PORT from there, or a port of the node itself.
PORT is the one to listen on, at 127.0.0.1 unless told otherwise; without it a free one.`
const LOOPBACK = '127.0.0.1'
/** Of what has a name: the agent knows the port. */
const ANY_PORT = 443

export type ForwardRequest = {
  /** What CONNECT asks the relay for. */
  readonly authority: string
  readonly listen: { readonly address: string; readonly port: number }
}

export async function main(argv: readonly string[], env: NodeJS.ProcessEnv): Promise<number> {
  const parsed = parseOptions(CREDENTIAL_OPTIONS, argv, env)
  if (parsed.kind === 'help') {
    process.stdout.write(`${USAGE}\n\n${ABOUT}\n\n${describeOptions(CREDENTIAL_OPTIONS)}\n`)
    return 0
  }
  const request = parsed.kind === 'ok' ? parseForward(parsed.positional) : undefined
  const errors = parsed.kind === 'invalid' ? parsed.errors : typeof request === 'string' ? [request] : []
  if (parsed.kind === 'invalid' || typeof request !== 'object') {
    for (const error of errors) process.stderr.write(`fulmar forward: ${error}\n`)
    return EX_USAGE
  }
  const credentials = await credentialsOf(parsed.values, env)
  const [what] = parsed.positional
  const onFailure = (reason: string): void => void process.stderr.write(`fulmar forward ${what}: ${reason}\n`)
  await runUntilSignal(async (signal) => {
    const { port, closed } = await runForward({ credentials, ...request, onFailure }, signal)
    const here = formatSocketAddress({ address: request.listen.address, port })
    process.stdout.write(`Forwarding from ${here} to ${what}; Ctrl-C ends it\n`)
    await closed
  })
  return 0
}

/** @returns what is wrong, as text. */
export function parseForward(words: readonly string[]): ForwardRequest | string {
  const [what, where = '0', ...rest] = words
  if (what === undefined) return `NODE/TARGET: is missing; write ${USAGE}`
  if (rest.length > 0) return `${rest.join(' ')}: nothing is expected here; one target at a time`
  const [, node, target] = /^([a-z0-9][-a-z0-9.]*)\/([^/\s]+)$/.exec(what) ?? []
  if (node === undefined || target === undefined) return `${what}: is not NODE/TARGET, such as edge-7/console`
  const [, bracketed, plain, digits] = /^(?:(?:\[([0-9a-f:]+)\]|([0-9.]+)):)?(\d{1,5})$/i.exec(where) ?? []
  const address = bracketed ?? plain ?? LOOPBACK
  const port = Number(digits)
  if (!(port <= 65535) || isIP(address) === 0) return `${where}: is not [ADDRESS:]PORT, such as 8080 or 0.0.0.0:8080`
  const authority = authorityOf(node, target)
  if (authority === undefined) return `${target}: is neither a name, HOST:PORT nor a port`
  return { authority, listen: { address, port } }
}

function authorityOf(node: string, target: string): string | undefined {
  const [, host, digits] = /^(?:([-a-zA-Z0-9._]+):)?(\d{1,5})$/.exec(target) ?? []
  const port = Number(digits)
  if (digits === undefined)
    return /^[a-z0-9]([-a-z0-9]*[a-z0-9])?$/.test(target) ? `${target}.${node}:${ANY_PORT}` : undefined
  if (port < 1 || port > 65535) return undefined
  return host === undefined ? `${node}:${port}` : `${host}.${node}:${port}`
}
