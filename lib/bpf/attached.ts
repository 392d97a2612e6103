// What runs at a hook of a cgroup, whoever attached it, there or further up.

import { closeSync, openSync } from 'node:fs'
import { infoOf } from './map.ts'
import { HOOKS, type Hook } from './program.ts'
import { Attributes, bpf } from './syscall.ts'

const PROGRAMS_MAX = 64
const EFFECTIVE = 1
const NAME = { offset: 64, bytes: 16 }

/** Names of programs, up to 15 characters each. @param group a folder of cgroup2. @throws BpfError */
export function attachedNames(group: string, hook: Hook): readonly string[] {
  const folder = openSync(group, 'r')
  try {
    const ids = Buffer.alloc(4 * PROGRAMS_MAX)
    const query = new Attributes(64).u32(0, folder).u32(4, HOOKS[hook]).u32(8, EFFECTIVE).pointer(16, ids)
    query.u32(24, PROGRAMS_MAX)
    bpf('PROG_QUERY', query, `programs of ${hook} at ${group}`)
    const count = query.bytes.readUInt32LE(24)
    return Array.from({ length: count }, (_, i) => nameOf(ids.readUInt32LE(4 * i)))
  } finally {
    closeSync(folder)
  }
}

function nameOf(id: number): string {
  const program = bpf('PROG_GET_FD_BY_ID', new Attributes(16).u32(0, id), `program ${id}`)
  try {
    const { offset, bytes } = NAME
    return infoOf(program, offset + bytes)
      .toString('latin1', offset)
      .replace(/\0.*$/, '')
  } finally {
    closeSync(program)
  }
}
