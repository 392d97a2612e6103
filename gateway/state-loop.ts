// What a gateway must not forget: its WireGuard key, its ports, the number of its last announcement, and what its peers
// announced, so that it starts without the cloud and stays who it was. Kept in STATE_DIR/gateway.

import { generateKeyPairSync, randomBytes, randomInt } from 'node:crypto'
import { join } from 'node:path'
import type { Log } from '../lib/log.ts'
import { openAnnouncements } from '../lib/net/announcement-files.ts'
import { makePrivateFolder, PRIVATE_MODE, readIfPresent, writeNew, writeWhole } from '../lib/net/files.ts'
import { UsageError } from '../lib/net/lifetime.ts'
import { createUpkeep } from '../lib/net/upkeep.ts'
import { NONCE_BYTES } from '../lib/wire/pcp.ts'
import { MAX_TERM } from '../lib/wire/lan.ts'
import type { SignedAnnouncement } from '../lib/wire/signal.ts'
import { isKey } from './probe.ts'
import type { Kept } from './election.ts'

/** Random per gateway, since two behind one NAT must differ; kept, since peers and NATs remember them. */
export type Ports = {
  /** Listen ports of the devices. */
  readonly direct: number
  readonly relayUdp: number
  readonly relayTcp: number
  /** Of the sockets that share WireGuard's. */
  readonly probe: number
  readonly udpProbe: number
}

export type GatewayState = {
  readonly privateKeyFile: string
  readonly privateKey: string
  readonly ports: Ports
  /** By which a router knows its mappings as ours (RFC 6887 §11.3), 12 bytes. */
  readonly mappingNonce: Buffer
  /** The peers' announcements as last saved, in the order that was saved last; those that it does not name come last. */
  readonly announcements: ReadonlyMap<string, SignedAnnouncement>
  /** Which start of this gateway this is, from 1. */
  readonly boot: number
  /** The role as last kept; undefined on a node that never had one. */
  readonly election: Kept | undefined
  /** A full disk is logged, and the gateway goes on. */
  readonly keepElection: (kept: Kept) => Promise<void>
  /** A number higher than any given out before, also before a crash. */
  readonly nextSequence: () => Promise<number>
  /** Each saves soon; a full disk is logged, and the gateway goes on. */
  readonly saveAnnouncement: (node: string, announcement: SignedAnnouncement) => void
  readonly removeAnnouncement: (node: string) => void
  readonly saveOrder: (nodes: readonly string[]) => void
}

const FIRST_PORT = 20_000
/** Under the ephemeral range of Linux (32768), so that no client socket takes one of ours. */
const LAST_PORT = 32_000

export async function loadState(stateDir: string, log: Log, signal: AbortSignal): Promise<GatewayState> {
  const folder = join(stateDir, 'gateway')
  await makePrivateFolder(folder)
  const privateKeyFile = join(folder, 'wireguard.key')
  await writeNewUnlessPresent(privateKeyFile, () => `${newPrivateKey()}\n`)
  const privateKey = (await readIfPresent(privateKeyFile))!.trim()
  if (!isKey(privateKey))
    throw new UsageError(`${privateKeyFile}: holds no WireGuard key; remove it, and peers learn of the new one`)
  const ports = await loadPorts(join(folder, 'ports.json'), log)
  const mappingNonce = await loadNonce(join(folder, 'port-mapping.nonce'))
  const sequenceFile = join(folder, 'sequence')
  let sequence = Number(await readIfPresent(sequenceFile)) || 0
  const bootFile = join(folder, 'boot')
  const boot = (Number(await readIfPresent(bootFile)) || 0) + 1
  const electionFile = join(folder, 'election.json')
  const keep = async (path: string, content: string): Promise<void> => {
    try {
      await writeWhole(path, `${content}\n`)
    } catch (err) {
      log.warn({ err, path }, 'cannot save; other gateways of this pool may not believe us after a restart')
    }
  }
  await keep(bootFile, String(boot))

  const files = openAnnouncements(folder, log)
  signal.addEventListener('abort', () => void files.flushed(), { once: true })
  const orderFile = join(folder, 'order.json')
  let order: readonly string[] = []
  const orderSaver = createUpkeep(
    {
      pass: () => writeWhole(orderFile, JSON.stringify(order)),
      onError: (err) => log.warn({ err, path: orderFile }, 'cannot save which peer came first'),
    },
    signal,
  )
  return {
    privateKeyFile,
    privateKey,
    ports,
    mappingNonce,
    boot,
    election: readElection(await readIfPresent(electionFile)),
    keepElection: (kept) => keep(electionFile, JSON.stringify(kept)),
    announcements: inOrder(await files.load(), readOrder(await readIfPresent(orderFile), orderFile, log)),
    nextSequence: async () => {
      sequence++
      try {
        await writeWhole(sequenceFile, `${sequence}\n`)
      } catch (err) {
        log.warn(
          { err, path: sequenceFile },
          'cannot save the number of our announcement; peers may ignore us after a restart',
        )
      }
      return sequence
    },
    saveAnnouncement: files.save,
    removeAnnouncement: files.remove,
    saveOrder: (nodes) => {
      order = nodes
      orderSaver.trigger()
    },
  }
}

async function writeNewUnlessPresent(path: string, content: () => string): Promise<void> {
  if ((await readIfPresent(path)) === undefined) await writeNew(path, content(), PRIVATE_MODE)
}

/** 32 bytes in base64, as `wg genkey` prints them. */
function newPrivateKey(): string {
  const { privateKey } = generateKeyPairSync('x25519')
  return privateKey.export({ type: 'pkcs8', format: 'der' }).subarray(-32).toString('base64')
}

async function loadPorts(path: string, log: Log): Promise<Ports> {
  const text = await readIfPresent(path)
  const kept = text === undefined ? undefined : readPorts(text)
  if (kept !== undefined) return kept
  if (text !== undefined) log.warn({ path }, 'the ports that were kept cannot be read; peers must find the new ones')
  const direct = randomInt(FIRST_PORT, LAST_PORT - 4)
  const ports = { direct, relayUdp: direct + 1, relayTcp: direct + 2, probe: direct + 3, udpProbe: direct + 4 }
  await writeWhole(path, `${JSON.stringify(ports)}\n`)
  return ports
}

async function loadNonce(path: string): Promise<Buffer> {
  const kept = Buffer.from((await readIfPresent(path))?.trim() ?? '', 'hex')
  if (kept.length === NONCE_BYTES) return kept
  const nonce = randomBytes(NONCE_BYTES)
  await writeWhole(path, `${nonce.toString('hex')}\n`, PRIVATE_MODE)
  return nonce
}

function readPorts(text: string): Ports | undefined {
  try {
    const { direct, relayUdp, relayTcp, probe, udpProbe } = JSON.parse(text) as Partial<Ports>
    if (isPort(direct) && isPort(relayUdp) && isPort(relayTcp) && isPort(probe) && isPort(udpProbe))
      return { direct, relayUdp, relayTcp, probe, udpProbe }
  } catch {
    // No JSON, or null: as if some were missing.
  }
  return undefined
}

/** What is damaged counts as never kept: then the others' terms are heard first. */
function readElection(text: string | undefined): Kept | undefined {
  if (text === undefined) return undefined
  try {
    const { term, active } = JSON.parse(text) as Partial<Kept>
    const known = typeof term === 'number' && Number.isInteger(term) && term >= 0 && term <= MAX_TERM
    return { term: known ? term : 0, active: known && active === true }
  } catch {
    return { term: 0, active: false }
  }
}

const isPort = (value: unknown): value is number => typeof value === 'number' && value > 0 && value < 65536

function readOrder(text: string | undefined, path: string, log: Log): readonly unknown[] {
  try {
    const order: unknown = JSON.parse(text ?? '[]')
    if (!Array.isArray(order)) throw new TypeError('not a list of nodes')
    return order
  } catch (err) {
    log.warn({ err, path }, 'which peer came first cannot be read; of two with one key either may be the one')
    return []
  }
}

function inOrder(
  announcements: ReadonlyMap<string, SignedAnnouncement>,
  order: readonly unknown[],
): ReadonlyMap<string, SignedAnnouncement> {
  const place = new Map(order.map((node, i) => [node, i]))
  const placeOf = ([node]: readonly [string, unknown]) => place.get(node) ?? Infinity
  return new Map([...announcements].toSorted((a, b) => (placeOf(a) === placeOf(b) ? 0 : placeOf(a) - placeOf(b))))
}
