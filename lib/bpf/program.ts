// Programs at the hooks of a cgroup: loaded, attached by links, kept by pins in a BPF file system.

import { closeSync, openSync } from 'node:fs'
import { assemble, listing, type Program, type Symbols } from './assembler.ts'
import { infoOf } from './map.ts'
import { Attributes, bpf, BpfError } from './syscall.ts'

/** Of enum bpf_attach_type: the hooks whose context is a struct bpf_sock_addr. */
export const HOOKS = { connect4: 10, connect6: 11, getpeername4: 29, getpeername6: 30 } as const
export type Hook = keyof typeof HOOKS

const CGROUP_SOCK_ADDR = 18
const LOG_BYTES = 1 << 20
/** The end of a verifier's log says what it refused. */
const LOG_LINES = 30
const LOG_LEVEL = 1
const NAME_BYTES_MAX = 15
/** A signal on its way, of a child that ended for example, stops the verifier; it has arrived by the next attempt. */
const ATTEMPTS = 5
/** Some helpers are for such programs only. */
const LICENSE = 'GPL\0'

/**
 * @returns the program's descriptor.
 * @throws BpfError with the end of the verifier's log where the verifier refuses the program.
 */
export function loadProgram(name: string, hook: Hook, program: Program, symbols: Symbols): number {
  const code = assemble(program, symbols)
  const license = Buffer.from(LICENSE)
  const attempt = (log: Buffer | undefined): number => {
    const attributes = new Attributes(80)
      .u32(0, CGROUP_SOCK_ADDR)
      .u32(4, code.length / 8)
      .pointer(8, code)
      .pointer(16, license)
      .text(48, name.slice(0, NAME_BYTES_MAX))
      .u32(68, HOOKS[hook])
    if (log !== undefined) attributes.u32(24, LOG_LEVEL).u32(28, log.length).pointer(32, log)
    for (let n = 1; ; n++)
      try {
        return bpf('PROG_LOAD', attributes, `program ${name}`)
      } catch (error) {
        if ((error as BpfError).code !== 'EAGAIN' || n === ATTEMPTS) throw error
      }
  }
  try {
    return attempt(undefined)
  } catch (error) {
    // Once more for the log, which costs memory that a program that loads need not spend.
    const log = Buffer.alloc(LOG_BYTES)
    try {
      return attempt(log)
    } catch {
      const text = log.toString('utf8', 0, log.indexOf(0)).trim().split('\n').slice(-LOG_LINES).join('\n')
      if (text === '') throw error
      const { message, code: errno } = error as BpfError
      throw new BpfError(`${message}; the verifier says:\n${text}\nof\n${listing(program)}`, errno, { cause: error })
    }
  }
}

/** Attaches beside what others attached there. @param group a folder of cgroup2. @returns the link's descriptor. */
export function createLink(program: number, group: string, hook: Hook): number {
  const folder = openSync(group, 'r')
  try {
    const attributes = new Attributes(48).u32(0, program).u32(4, folder).u32(8, HOOKS[hook])
    return bpf('LINK_CREATE', attributes, `${hook} at ${group}`)
  } finally {
    closeSync(folder)
  }
}

/** Puts another program in a link's place; every call runs the one or the other. */
export function updateLink(link: number, program: number): void {
  bpf('LINK_UPDATE', new Attributes(32).u32(0, link).u32(4, program), 'link')
}

/** Where a link is attached: the id of the cgroup, which is its folder's inode; undefined once it is detached. */
export function linkedTo(link: number): { readonly groupId: bigint; readonly hook: Hook | undefined } | undefined {
  const info = infoOf(link, 32)
  const groupId = info.readBigUInt64LE(16)
  const type = info.readUInt32LE(24)
  const hook = (Object.keys(HOOKS) as Hook[]).find((name) => HOOKS[name] === type)
  return groupId === 0n ? undefined : { groupId, hook }
}

/** Linux 5.9; before, a link ends with its last descriptor and pin. */
export function detachLink(link: number): void {
  bpf('LINK_DETACH', new Attributes(16).u32(0, link), 'link')
}
