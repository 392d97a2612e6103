// One generation of the socket load balancer in the kernel: its own maps and programs. It is filled before it is attached;
// attaching puts its programs in the place of the last generation's, hook by hook, so that every call runs one of them. A
// restarted agent, another version and maps that have grown too small are all this: a new generation.

import { closeSync, existsSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { groupId } from '../lib/bpf/hook-point.ts'
import { BpfMap, createMap, shapeOf, type MapShape } from '../lib/bpf/map.ts'
import { openPin, pin, unpin } from '../lib/bpf/pins.ts'
import { createLink, detachLink, HOOKS, linkedTo, loadProgram, updateLink, type Hook } from '../lib/bpf/program.ts'
import { call, exit, mov, type Program } from '../lib/bpf/assembler.ts'
import { netnsCookie } from '../lib/bpf/syscall.ts'
import type { Write } from './socket-lb-ledger.ts'
import { connectProgram, getpeernameProgram, type ProgramOptions } from './socket-lb-programs.ts'
import {
  KEPT_SHAPES,
  LEASE_CANARY,
  LEASE_SERVICES,
  leaseValue,
  numberKey,
  shapesOf,
  type Capacity,
} from './socket-lb-records.ts'

type MapName = keyof ReturnType<typeof shapesOf> | keyof typeof KEPT_SHAPES
const HOOK_NAMES = Object.keys(HOOKS) as readonly Hook[]
const KEPT_NAMES = Object.keys(KEPT_SHAPES) as readonly (keyof typeof KEPT_SHAPES)[]
/** Where the kernel does not tell a namespace's cookie, nothing is served at 127.0.0.1. */
const NO_NAMESPACE = 0n
const NOTHING = new Uint8Array(1)
const NO_SYMBOLS = { maps: {}, constants: {} }

/** Links to a group, by hook, that outlive generations and, where there are pins, the agent. */
export class Links {
  readonly group: string
  /** undefined where there is no BPF file system. */
  readonly #folder: string | undefined
  readonly #fds = new Map<Hook, number>()

  constructor(group: string, folder: string | undefined) {
    this.group = group
    this.#folder = folder
    if (folder !== undefined) for (const hook of HOOK_NAMES) this.#adopt(hook, join(folder, hook))
  }

  /** Those of a predecessor are there and at work. */
  get complete(): boolean {
    return HOOK_NAMES.every((hook) => this.#fds.has(hook))
  }

  /** @param programs descriptors, by hook. @throws BpfError; then some hooks may have new ones. */
  attach(programs: ReadonlyMap<Hook, number>): void {
    for (const [hook, program] of programs) {
      const fd = this.#fds.get(hook)
      if (fd !== undefined) {
        try {
          updateLink(fd, program)
          continue
        } catch {
          // It was detached, or is of a kind that cannot be changed.
          this.#drop(hook)
        }
      }
      const link = createLink(program, this.group, hook)
      this.#fds.set(hook, link)
      if (this.#folder !== undefined) pinIn(this.#folder, hook, link)
    }
  }

  /** Whether anybody detached one, or took its pin away; drops what is gone, so that `attach` makes it anew. */
  check(): boolean {
    for (const [hook, fd] of this.#fds) if (linkedTo(fd) === undefined || !this.#pinned(hook)) this.#drop(hook)
    return this.complete
  }

  detach(): void {
    for (const hook of [...this.#fds.keys()]) this.#drop(hook)
  }

  /** They stay attached where they are pinned. */
  close(): void {
    for (const fd of this.#fds.values()) closeSync(fd)
    this.#fds.clear()
  }

  #adopt(hook: Hook, path: string): void {
    const fd = openPin(path)
    if (fd === undefined) return
    this.#fds.set(hook, fd)
    const found = linkedTo(fd)
    // Of another group, or a hook by another's name.
    if (found?.groupId !== groupId(this.group) || found.hook !== hook) this.#drop(hook)
  }

  #pinned(hook: Hook): boolean {
    return this.#folder === undefined || existsSync(join(this.#folder, hook))
  }

  #drop(hook: Hook): void {
    const fd = this.#fds.get(hook)!
    this.#fds.delete(hook)
    if (this.#folder !== undefined) unpin(join(this.#folder, hook))
    try {
      detachLink(fd)
    } catch {
      // A kernel before 5.9 cannot: it ends with its last descriptor.
    }
    closeSync(fd)
  }
}

/** The maps that programs write; pinned, so that the next agent goes on with them. */
export function keptMaps(folder: string | undefined): readonly BpfMap[] {
  return KEPT_NAMES.map((name) => {
    const shape: MapShape = KEPT_SHAPES[name]
    const path = folder === undefined ? undefined : join(folder, name)
    const fd = path === undefined ? undefined : openPin(path)
    if (fd !== undefined) {
      if (JSON.stringify(shapeOf(fd).shape) === JSON.stringify(shape)) return new BpfMap(name, shape, fd)
      closeSync(fd)
      unpin(path!)
    }
    const map = createMap(`fm_${name}`, shape)
    if (folder !== undefined) pinIn(folder, name, map.fd)
    return map
  })
}

/** Pins again what lost its pin. */
export function pinKept(kept: readonly BpfMap[], folder: string | undefined): void {
  if (folder === undefined) return
  for (const [i, name] of KEPT_NAMES.entries()) if (!existsSync(join(folder, name))) pinIn(folder, name, kept[i]!.fd)
}

/** The folder may have gone with its pins. */
function pinIn(folder: string, name: string, fd: number): void {
  mkdirSync(folder, { recursive: true, mode: 0o700 })
  pin(join(folder, name), fd)
}

/** Pins that this version has no use for. */
export function strangePins(folder: string): readonly string[] {
  const known: readonly string[] = [...HOOK_NAMES, ...KEPT_NAMES]
  return readdirSync(folder).filter((name) => !known.includes(name))
}

/**
 * Whether programs can choose the error of a call: older kernels have no bpf_set_retval, or not for these programs.
 * @throws BpfError where no such program can be loaded at all, or its maps not be made.
 */
export function canRefuse(): boolean {
  const tryOut = (program: Program): void => closeSync(loadProgram('fm_probe', 'connect4', program, NO_SYMBOLS))
  createMap('fm_probe', KEPT_SHAPES.peers).close()
  tryOut([mov('r0', 1), exit()])
  try {
    tryOut([mov('r1', -1), call('set_retval'), mov('r0', 0), exit()])
    return true
  } catch {
    return false
  }
}

export class Generation {
  readonly capacity: Capacity
  readonly programs: ReadonlyMap<Hook, number>
  readonly #maps: Readonly<Record<MapName, BpfMap>>
  #levels = 0n
  #excluded = new Set<bigint>()

  /** @throws BpfError where this kernel cannot, or refuses. */
  constructor(capacity: Capacity, kept: readonly BpfMap[], options: ProgramOptions) {
    this.capacity = capacity
    const opened: number[] = []
    try {
      const own = Object.entries(shapesOf(capacity)).map(([name, shape]) => {
        const map = createMap(`fm_${name}`, shape)
        opened.push(map.fd)
        return [name, map] as const
      })
      const keptEntries = KEPT_NAMES.map((name, i) => [name, kept[i]!] as const)
      this.#maps = Object.fromEntries([...own, ...keptEntries]) as Record<MapName, BpfMap>
      const symbols = {
        maps: Object.fromEntries(Object.entries(this.#maps).map(([name, { fd }]) => [name, fd])),
        constants: { 'node-namespace': netnsCookie() ?? NO_NAMESPACE },
      }
      const load = (hook: Hook, program: Program): number => {
        const fd = loadProgram(`fm_${hook}`, hook, program, symbols)
        opened.push(fd)
        return fd
      }
      this.programs = new Map([
        ['connect4', load('connect4', connectProgram(4, options))],
        ['connect6', load('connect6', connectProgram(6, options))],
        ['getpeername4', load('getpeername4', getpeernameProgram(4))],
        ['getpeername6', load('getpeername6', getpeernameProgram(6))],
      ])
    } catch (error) {
      opened.forEach((fd) => closeSync(fd))
      throw error
    }
  }

  /** @throws BpfError; then what the maps hold is not known. */
  apply(writes: readonly Write[]): void {
    for (const { map, keys, values } of writes) {
      if (values === undefined) this.#maps[map].deleteAll(keys)
      else this.#maps[map].setAll(keys, values)
    }
  }

  /** @param servicesNs,canaryNs until when each is served, CLOCK_MONOTONIC; 0 for not at all. */
  lease(servicesNs: bigint, canaryNs: bigint): void {
    this.#maps.leases.set(numberKey(LEASE_SERVICES), leaseValue(servicesNs, this.#levels))
    this.#maps.leases.set(numberKey(LEASE_CANARY), leaseValue(canaryNs, 0n))
  }

  /** Takes effect with the next lease. @param groups ids, and how many levels each lies below the root; not too many. */
  exclude(groups: readonly { readonly id: bigint; readonly level: number }[]): void {
    const wanted = new Set(groups.map(({ id }) => id))
    for (const id of wanted) if (!this.#excluded.has(id)) this.#maps.excluded.set(idKey(id), NOTHING)
    for (const id of this.#excluded) if (!wanted.has(id)) this.#maps.excluded.delete(idKey(id))
    this.#excluded = wanted
    this.#levels = groups.reduce((levels, { level }) => levels | (1n << BigInt(level)), 0n)
  }

  /** The kernel keeps what is attached. */
  close(): void {
    for (const fd of this.programs.values()) closeSync(fd)
    for (const name of Object.keys(shapesOf(this.capacity)) as MapName[]) this.#maps[name].close()
  }
}

function idKey(id: bigint): Buffer {
  const key = Buffer.alloc(8)
  key.writeBigUInt64LE(id)
  return key
}
