// A mesh on nodes where somebody else's rules and devices were there before it: what they are, calls in all directions, and
// whether all of theirs is as it was, while we run and after we are gone.

import { setTimeout as sleep } from 'node:timers/promises'
import type { Test } from 'tap'
import { addressAt, contains, parseCidr, type Cidr } from '../../lib/cidr.ts'
import type { Lab } from '../lab/lab.ts'
import type { LabNode } from '../lab/topology.ts'
import { addressOf, directOnce, get, LONG, openMesh, until, type Answer } from './mesh.ts'

/** Of the first, nodes are on two LANs; of the second, on one. */
export const POOLS = ['bay', 'cape'] as const
export const CALLS = LONG ? 100 : 20
const NODE_PORT = 8081

/** What was there before us on a node: a script for `sh -e`. */
export type Before = (node: LabNode, lab: Lab) => string

/** Opens the mesh on nodes prepared so, runs `body`, and looks whether all of theirs is as it was. */
export async function beside(
  t: Test,
  suffix: string,
  before: Before,
  body: (lab: Lab) => Promise<void> = (lab) => callAll(t, lab),
): Promise<void> {
  const found = new Map<string, State>()
  const lab = await openMesh(t, suffix, {
    pools: POOLS,
    nodes: 2,
    splitLans: [POOLS[0]],
    async prepare(lab) {
      for (const node of edges(lab)) {
        await sh(lab, node.name, before(node, lab))
        await until(
          'addresses that count',
          async () => (await sh(lab, node.name, 'ip -6 address show tentative')) === '',
        )
        found.set(node.name, await stateOf(lab, node.name))
      }
    },
  })
  for (const { name } of edges(lab)) lab.spawn(name, [process.execPath, '-e', SERVER, String(NODE_PORT)])
  await directOnce(lab, POOLS)
  await body(lab)

  for (const { name } of edges(lab))
    t.strictSame(theirs(await stateOf(lab, name)), theirs(found.get(name)!), `${name}: what is theirs is as it was`)
  for (const { name } of edges(lab)) {
    await lab.stop(name, 'agent', 'SIGTERM')
    if (lab.topology.pools.some(({ gateways }) => gateways.includes(name))) await lab.stop(name, 'gateway', 'SIGTERM')
    await sh(lab, name, 'fulmar cleanup')
    t.strictSame(await stateOf(lab, name), found.get(name), `${name}: after cleanup all is as it was before`)
  }
}

export const edges = (lab: Lab): readonly LabNode[] =>
  lab.topology.nodes.filter(({ pool }) => (POOLS as readonly string[]).includes(pool))

/** Calls each way: pods to pods, pods to nodes, nodes to pods, cloud to edge and back; whoever is called sees who calls. */
export async function callAll(t: Test, lab: Lab): Promise<void> {
  for (const family of [4, 6] as const) {
    const pod = (host: string) => addressOf(lab, host, family)
    const node = (name: string) => nodeAddress(lab, name, family)
    /** Whichever of its addresses among its pods a node calls from: a CNI's device may have one too. */
    const prefix = (name: string) => parseCidr(podCidrOf(lab, name, family))!
    const ways: readonly (readonly [from: string, source: string | Cidr, to: string, port: number])[] = [
      ['bay2-client', pod('bay2-client'), pod('cape2-shop'), 8080],
      ['cape2-client', pod('cape2-client'), pod('bay2-shop'), 8080],
      ['bay2-client', pod('bay2-client'), node('cape2'), NODE_PORT],
      ['cape2-client', pod('cape2-client'), node('bay2'), NODE_PORT],
      ['bay2', prefix('bay2'), pod('cape2-shop'), 8080],
      ['cape2', prefix('cape2'), pod('bay2-shop'), 8080],
      ['cloud-client', pod('cloud-client'), pod('bay2-shop'), 8080],
      ['bay2-client', pod('bay2-client'), pod('cloud-shop'), 8080],
    ]
    for (const [from, source, to, port] of ways) {
      const url = `http://${family === 6 ? `[${to}]` : to}:${port}/`
      await until(`${from} calls ${url}`, async () => (await get(lab, from, [url], family)).length === 1, {
        withinMs: 10_000,
      }).catch(() => undefined)
      const answers = await get(lab, from, Array<string>(CALLS).fill(url), family)
      const isKept = ({ client }: Answer) => (typeof source === 'string' ? client === source : contains(source, client))
      const kept = answers.filter(isKept)
      t.same(
        [answers.length, kept.length],
        [CALLS, CALLS],
        `${from} calls ${url}: all answered, itself seen (else ${answers.find((answer) => !isKept(answer))?.client})`,
      )
    }
  }
}

const podCidrOf = (lab: Lab, name: string, family: 4 | 6): string =>
  lab.topology.nodes.find((node) => node.name === name)!.podCidrs.find((text) => text.includes(':') === (family === 6))!

/** The first address of a node's podCIDR, which it has itself. */
const nodeAddress = (lab: Lab, name: string, family: 4 | 6): string =>
  addressAt(parseCidr(podCidrOf(lab, name, family))!, 1n)

const SERVER = `
require('http').createServer((request, response) => {
  const client = request.socket.remoteAddress.replace(/^::ffff:/, '')
  response.end(JSON.stringify({ pod: '', node: '', client }) + '\\n')
}).listen(Number(process.argv[1]), '::')`

export async function sh(lab: Lab, host: string, script: string): Promise<string> {
  const { code, stdout, stderr } = await lab.exec(host, ['sh', '-e', '-c', script])
  if (code !== 0) throw new Error(`${script} on ${host}: ${stderr || stdout}`)
  return stdout
}

/** What people set on a node, in the words of its tools; ours is in it while we run. */
type State = Readonly<Record<'nft' | 'rules' | 'routes' | 'links' | 'sysctls', readonly string[]>>

async function stateOf(lab: Lab, host: string): Promise<State> {
  const lines = async (script: string) =>
    (await sh(lab, host, script))
      .split('\n')
      .map((line) => line.trimEnd())
      .filter((line) => line !== '')
  return {
    nft: await lines('nft -s list ruleset'),
    rules: await lines('ip rule; ip -6 rule'),
    routes: await lines('ip route show table all; ip -6 route show table all | grep -v " expires "'),
    links: await lines('ip -o -d link | sed "s/^[0-9]*: //; s/@[^:]*//; s/ qlen [0-9]*//"'),
    sysctls: await lines('for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo $f $(cat $f); done'),
  }
}

/** Leaves out what carries our names and numbers. */
function theirs({ nft, ...rest }: State): State {
  const notOurs = (line: string) =>
    !/fm-|lookup 707[78]|table 707[78]|169\.254\.20\.5|fd66:756c|proto 17[78]/.test(line)
  const others = (key: keyof typeof rest) => rest[key].filter(notOurs)
  const tables: string[] = []
  let ours = false
  for (const line of nft) {
    if (line.startsWith('table ')) ours = /^table \w+ fulmar/.test(line)
    if (!ours) tables.push(line)
  }
  return {
    nft: tables,
    rules: others('rules'),
    routes: others('routes'),
    links: others('links'),
    sysctls: others('sysctls'),
  }
}

/** Problems that an agent tells, once it tells one that matches. */
export const toldBy = (lab: Lab, node: string, what: RegExp): Promise<string> =>
  until(`${node} tells ${what}`, async () => (await problemsOf(lab, node)).find((text) => what.test(text)))

export async function untoldBy(lab: Lab, node: string, what: RegExp): Promise<void> {
  await sleep(100)
  await until(
    `${node} no longer tells ${what}`,
    async () => !(await problemsOf(lab, node)).some((text) => what.test(text)),
  )
}

const problemsOf = async (lab: Lab, node: string): Promise<readonly string[]> =>
  (await lab.status()).daemons.flatMap(({ status }) =>
    status.kind === 'agent' && status.node === node ? status.problems : [],
  )
