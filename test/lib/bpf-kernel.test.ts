// Maps, programs, links and pins against the kernel.

import { closeSync, mkdtempSync, rmdirSync } from 'node:fs'
import { spawnSync } from 'node:child_process'
import { connect } from 'node:net'
import t from 'tap'
import { exit, jne, label, ldx, loadMap, mov, type Program } from '../../lib/bpf/assembler.ts'
import { groupId } from '../../lib/bpf/hook-point.ts'
import { BpfMap, createMap, shapeOf, type MapShape } from '../../lib/bpf/map.ts'
import { makePinFolder, openPin, pin, removePins, unpin } from '../../lib/bpf/pins.ts'
import { createLink, detachLink, linkedTo, loadProgram, updateLink } from '../../lib/bpf/program.ts'
import { netnsCookie } from '../../lib/bpf/syscall.ts'
import { enterCage } from '../agent/cage.ts'
import { isRoot } from './netns.ts'

const cage = isRoot ? enterCage('fmk-', import.meta.url) : undefined
if (!isRoot) t.test('needs root', { skip: true }, () => {})
if (cage !== undefined) {
  const number = (value: number): Buffer => Buffer.from(new Uint32Array([value]).buffer)
  const none = { maps: {}, constants: {} }
  const proceed: Program = [mov('r0', 1), exit()]
  const refuse: Program = [mov('r0', 0), exit()]

  for (const type of ['hash', 'array', 'lru-hash'] as const)
    t.test(`a map: ${type}`, async (t) => {
      const shape: MapShape = { type, keyBytes: 4, valueBytes: 8, entries: 10_000 }
      const map = createMap(`fm_${type}`.replace('-', '_'), shape)
      t.teardown(() => map.close())
      t.same(shapeOf(map.fd), { name: `fm_${type}`.replace('-', '_'), shape })
      map.set(number(3), Buffer.from('eight by'))
      t.equal(map.get(number(3))?.toString(), 'eight by')
      map.set(number(3), Buffer.from('tes long'))
      t.equal(map.get(number(3))?.toString(), 'tes long')
      const rows = Array.from({ length: 9_000 }, (_, i) => i)
      map.setAll(Buffer.concat(rows.map(number)), Buffer.concat(rows.map((i) => Buffer.from(`${i}`.padStart(8)))))
      for (const i of [0, 4095, 4096, 8999]) t.equal(map.get(number(i))?.toString(), `${i}`.padStart(8))
      t.throws(() => map.set(number(1), Buffer.alloc(7)), RangeError)
      t.throws(() => map.setAll(Buffer.alloc(8), Buffer.alloc(8)), RangeError)
      if (type === 'array')
        return t.throws(() => map.get(number(10_000)) ?? map.set(number(10_000), Buffer.alloc(8)), { code: 'E2BIG' })
      t.equal(map.get(number(9_999)), undefined)
      t.equal(map.delete(number(5)), true)
      t.equal(map.delete(number(5)), false)
      map.deleteAll(Buffer.concat([number(6), number(5), number(7)]))
      // One that forgets may have forgotten some.
      if (type === 'hash') t.equal(map.keys().length, 8_997)
    })

  t.test('a map that is full', async (t) => {
    const map = createMap('fm_small', { type: 'hash', keyBytes: 4, valueBytes: 1, entries: 2 })
    t.teardown(() => map.close())
    t.throws(() => map.setAll(Buffer.concat([1, 2, 3].map(number)), Buffer.alloc(3)), {
      code: 'E2BIG',
      message: /map fm_small, 3 elements/,
    })
  })

  t.test('a program that the verifier refuses', async (t) => {
    const reckless = [mov('r2', 'r10'), ldx('u64', 'r0', 'r2', 8), label('end'), exit()]
    t.throws(() => loadProgram('reckless', 'connect4', reckless, none), {
      code: 'EACCES',
      message: /invalid read from stack[\s\S]*of\n {3}0: r2 = r10\n {3}1: r0 = \*\(u64/,
    })
    const map = createMap('fm_any', { type: 'hash', keyBytes: 4, valueBytes: 4, entries: 1 })
    t.teardown(() => map.close())
    const jumpy = [loadMap('r1', 'any'), jne('r1', 0, 'end'), label('end'), mov('r0', 5), exit()]
    t.throws(() => loadProgram('jumpy', 'connect4', jumpy, { maps: { any: map.fd }, constants: {} }), {
      message: /verifier says/,
    })
  })

  const attempt = (): Promise<string> =>
    new Promise((resolve) => connect(1, '127.0.0.1').on('error', ({ code }: NodeJS.ErrnoException) => resolve(code!)))

  t.test('a link, its updates and its end', async (t) => {
    t.equal(await attempt(), 'ECONNREFUSED')
    const [open, closed] = [proceed, refuse].map((program) => loadProgram('fm_test', 'connect4', program, none)) as [
      number,
      number,
    ]
    const link = createLink(closed, cage.group, 'connect4')
    t.same(linkedTo(link), { groupId: groupId(cage.group), hook: 'connect4' })
    t.equal(await attempt(), 'EPERM')
    updateLink(link, open)
    t.equal(await attempt(), 'ECONNREFUSED')
    updateLink(link, closed)
    t.equal(await attempt(), 'EPERM')
    detachLink(link)
    t.equal(linkedTo(link), undefined)
    t.equal(await attempt(), 'ECONNREFUSED')
    t.throws(() => updateLink(link, open), { code: 'ENOLINK' })
    for (const fd of [open, closed, link]) closeSync(fd)
  })

  t.test('pins hold what they name', async (t) => {
    const folder = '/sys/fs/bpf/test'
    await makePinFolder(folder)
    await makePinFolder(folder)
    const program = loadProgram('fm_test', 'connect4', refuse, none)
    const link = createLink(program, cage.group, 'connect4')
    pin(`${folder}/connect4`, link)
    t.throws(() => pin(`${folder}/connect4`, link), { code: 'EEXIST' })
    const map = createMap('fm_map', { type: 'hash', keyBytes: 4, valueBytes: 4, entries: 1 })
    map.set(number(1), number(2))
    pin(`${folder}/map`, map.fd)
    map.close()
    for (const fd of [link, program]) closeSync(fd)
    t.equal(await attempt(), 'EPERM', 'without a descriptor')

    const again = openPin(`${folder}/map`)!
    t.same(new BpfMap('again', shapeOf(again).shape!, again).get(number(1)), number(2))
    closeSync(again)
    unpin(`${folder}/map`)
    t.equal(openPin(`${folder}/map`), undefined)
    const held = openPin(`${folder}/connect4`)!
    t.same(removePins(folder), ['connect4'])
    t.equal(await attempt(), 'ECONNREFUSED', 'detached although a descriptor is open')
    closeSync(held)
    t.same(removePins(folder), [])
  })

  t.test('a folder that is no place for pins', async (t) => {
    await t.rejects(makePinFolder('/proc/sys/fulmar'), /no BPF file system, and holds other files/)
    const empty = mkdtempSync('/tmp/fulmar-bpf-')
    await makePinFolder(`${empty}/pins`)
    t.same(removePins(`${empty}/pins`), [])
    spawnSync('umount', [empty])
    rmdirSync(empty)
  })

  t.test('the cookie of this network namespace', async (t) => {
    t.ok(netnsCookie()! > 0n)
    t.equal(netnsCookie(), netnsCookie())
  })

  t.test('no warning is heard of node:ffi, others are', async (t) => {
    const script = `import { netnsCookie } from '${import.meta.resolve('../../lib/bpf/syscall.ts')}'
      netnsCookie(); process.emitWarning('another', 'ExperimentalWarning')`
    const { stderr, status } = spawnSync(process.execPath, ['--input-type=module', '-e', script], { encoding: 'utf8' })
    t.equal(status, 0, stderr)
    t.match(stderr, /ExperimentalWarning: another/)
    t.notMatch(stderr, /FFI/)
  })
}
