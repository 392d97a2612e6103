// The programs as text: a change of one is seen in review. `UPDATE=1 node FILE` writes them anew.

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { connectProgram, getpeernameProgram } from '../../agent/socket-lb-programs.ts'
import { KEPT_SHAPES, shapesOf } from '../../agent/socket-lb-records.ts'
import { assemble, listing } from '../../lib/bpf/assembler.ts'

const GOLDEN = join(import.meta.dirname, '../data/socket-lb')
const programs = {
  connect4: connectProgram(4, { refuse: true }),
  'connect4-without-refusal': connectProgram(4, { refuse: false }),
  connect6: connectProgram(6, { refuse: true }),
  getpeername4: getpeernameProgram(4),
  getpeername6: getpeernameProgram(6),
}
const shapes = { ...shapesOf({ frontends: 1, slots: 1, members: 1 }), ...KEPT_SHAPES }
const symbols = {
  maps: Object.fromEntries(Object.keys(shapes).map((name, i) => [name, i])),
  constants: { 'node-namespace': 1n },
}

for (const [name, program] of Object.entries(programs)) {
  const file = join(GOLDEN, `${name}.txt`)
  const text = listing(program)
  if (process.env['UPDATE'] === '1') writeFileSync(file, text)
  t.equal(text, readFileSync(file, 'utf8'), name)
  const words = assemble(program, symbols).length / 8
  t.ok(words < 4096, `${name}: ${words} words, which all kernels take`)
}
