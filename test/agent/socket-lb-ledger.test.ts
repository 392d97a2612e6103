import t from 'tap'
import { byService, type Frontend, type ServiceFrontends } from '../../agent/balance.ts'
import { entriesOf, slotsOf } from '../../agent/socket-lb.ts'
import { capacityFor, Ledger, type Write } from '../../agent/socket-lb-ledger.ts'
import {
  FRONTEND,
  MEMBER,
  PLACE_BYTES,
  PLACE_KEY_BYTES,
  QUARANTINE_MS,
  writeMember,
  writePlace,
  type Place,
} from '../../agent/socket-lb-records.ts'
import { EMPTY, sortedList } from '../../lib/sorted-list.ts'
import { options, serviceOf, target } from './frontends.ts'

const read = (service: ServiceFrontends) => entriesOf(service, options)
const planned = (ledger: Ledger, services: readonly ServiceFrontends[], nowMs: number, by = read) =>
  ledger.plan(sortedList(services, byService), by, nowMs)

/** What a kernel would hold. */
class Maps {
  readonly maps = {
    slots: new Map<string, Buffer>(),
    members: new Map(),
    frontends: new Map(),
    services: new Map(),
  } as Record<Write['map'], Map<string, Buffer>>
  /** @param seen is called after each element. */
  apply(writes: readonly Write[], seen: () => void = () => undefined): void {
    for (const { map, count, keys, values } of writes)
      for (let i = 0; i < count; i++) {
        const [keyBytes, valueBytes] = [keys.length / count, (values?.length ?? 0) / count]
        const key = hex(keys.subarray(i * keyBytes, (i + 1) * keyBytes))
        if (values === undefined) this.maps[map].delete(key)
        else this.maps[map].set(key, Buffer.from(values.subarray(i * valueBytes, (i + 1) * valueBytes)))
        seen()
      }
  }
  /** Targets as the program reads them; undefined where nobody answers. */
  answers(place: Place): readonly string[] | undefined {
    const number = this.maps.services.get(hex(placeBytes(place).subarray(0, PLACE_KEY_BYTES)))
    if (number === undefined) return undefined
    const frontend = this.maps.frontends.get(hex(number))!
    if (!frontend.subarray(0, PLACE_BYTES).equals(placeBytes(place))) throw new Error('another frontend')
    const [first, count] = [frontend.readUInt32LE(FRONTEND.slots), frontend.readUInt32LE(FRONTEND.slots + 4)]
    return Array.from({ length: count }, (_, i) => {
      const slot = this.maps.slots.get(hex(new Uint8Array(new Uint32Array([first + i]).buffer)))
      if (slot === undefined) throw new Error('an empty slot')
      return `${[...slot.subarray(12, 16)].join('.')}:${slot.readUInt16BE(16)}`
    })
  }
}
const placeBytes = (place: Place): Buffer => {
  const bytes = Buffer.alloc(PLACE_BYTES)
  writePlace(place, bytes)
  return bytes
}
const hex = (bytes: Uint8Array) => Buffer.from(bytes).toString('hex')
const clusterIp = (last: number): Place => ({ family: 4, address: `10.96.0.${last}`, port: 80 })

t.test('from set to set, element by element', async (t) => {
  let seed = 7
  const random = (below: number): number => {
    seed = (seed * 1103515245 + 12345) % 2 ** 31
    return Math.floor((seed / 2 ** 31) * below)
  }
  const someService = (i: number): ServiceFrontends =>
    serviceOf({
      service: `shop/s${10 + i}`,
      address: `10.96.0.${i}`,
      targets: Array.from({ length: random(6) }, () => target(random(9), 1 + random(3))).filter(
        ({ address }, j, all) => all.findIndex((other) => other.address === address) === j,
      ),
      ...(random(3) === 0 ? { affinitySeconds: 60 } : {}),
    })
  const wantedOf = (services: readonly ServiceFrontends[], i: number) =>
    services
      .filter(({ service }) => service === `shop/s${10 + i}`)
      .map(({ frontends }) => slotsOf(frontends[0]!.targets).map(({ address, port }) => `${address}:${port}`))[0]
  const ledger = new Ledger({ frontends: 64, slots: 1024, members: 128 }, [])
  const maps = new Maps()
  let services: readonly ServiceFrontends[] = []
  let steps = 0
  for (let round = 0, nowMs = 0; round < 100; round++, nowMs += 1_000) {
    const before = services
    services = Array.from({ length: 12 }, (_, i) => i + 1).flatMap((i) => {
      const known = before.find(({ service }) => service === `shop/s${10 + i}`)
      const dice = random(10)
      return dice === 0 ? [] : dice < 3 || known === undefined ? [someService(i)] : [known]
    })
    const writes = planned(ledger, services, nowMs)
    if (writes === undefined) throw new Error('no room')
    maps.apply(writes, () => {
      steps++
      for (let i = 1; i <= 12; i++) {
        const found = JSON.stringify(maps.answers(clusterIp(i)))
        const either = [before, services].map((some) => JSON.stringify(wantedOf(some, i)))
        if (!either.includes(found)) t.fail(`round ${round}, service ${i}: ${found} is neither of ${either.join(' ')}`)
      }
    })
    for (let i = 1; i <= 12; i++)
      if (JSON.stringify(maps.answers(clusterIp(i))) !== JSON.stringify(wantedOf(services, i)))
        t.fail(`round ${round}, service ${i}: ${maps.answers(clusterIp(i))?.join(' ')}`)
    const members = services.flatMap(({ frontends: [frontend] }) =>
      frontend!.affinitySeconds ? frontend!.targets : [],
    )
    if (maps.maps.members.size !== members.length) t.fail(`round ${round}: ${maps.maps.members.size} members`)
  }
  t.ok(steps > 500, `${steps} steps`)
  t.same(planned(ledger, services, 1e9), [], 'the same again is nothing')
  t.same(
    planned(ledger, services, 1e9, (service) => read(service)),
    [],
    'read anew, it is nothing either',
  )
})

t.test('nothing is used again before nobody can be at work with it', async (t) => {
  const ledger = new Ledger({ frontends: 2, slots: 4, members: 4 }, [])
  const plan = (services: readonly ServiceFrontends[], nowMs: number) => planned(ledger, services, nowMs)
  t.ok(plan([serviceOf({})], 0))
  t.ok(plan([serviceOf({ targets: [target(3), target(4)] })], 1))
  t.equal(plan([serviceOf({})], QUARANTINE_MS), undefined, 'no room yet')

  const later = new Ledger({ frontends: 1, slots: 4, members: 4 }, [])
  t.ok(planned(later, [serviceOf({})], 0))
  t.ok(planned(later, [], 1))
  t.equal(later.size, 0)
  const writes = planned(later, [serviceOf({ address: '10.96.0.9' })], 1 + QUARANTINE_MS)!
  const maps = new Maps()
  maps.apply(writes)
  t.same(maps.answers(clusterIp(9)), ['10.244.0.1:8080', '10.244.0.2:8080'])
})

t.test('two services on one address', async (t) => {
  const ledger = new Ledger({ frontends: 16, slots: 64, members: 4 }, [])
  const maps = new Maps()
  const [a, b] = [1, 2].map((i) => serviceOf({ service: `shop/${'ab'[i - 1]}`, targets: [target(i)] })) as [
    ServiceFrontends,
    ServiceFrontends,
  ]
  let nowMs = 0
  const after = (...services: readonly ServiceFrontends[]) => {
    maps.apply(planned(ledger, services, (nowMs += 10_000))!)
    return maps.answers(clusterIp(1))
  }
  t.same(after(b), ['10.244.0.2:8080'])
  t.same(after(a, b), ['10.244.0.1:8080'], 'the first by name has it')
  t.same(after(serviceOf({ service: 'shop/a', targets: [target(5)] }), b), ['10.244.0.5:8080'])
  t.same(after(b), ['10.244.0.2:8080'], 'the other is there when it goes')
  t.equal(after(), undefined)
})

t.test('members follow affinity', async (t) => {
  const ledger = new Ledger({ frontends: 16, slots: 64, members: 3 }, [])
  const maps = new Maps()
  const after = (frontend: Partial<Frontend>) => {
    const writes = planned(ledger, [serviceOf(frontend)], 0)
    if (writes === undefined) return 'no room'
    maps.apply(writes)
    return [...maps.maps.members.keys()].sort()
  }
  const key = (last: number): string => {
    const bytes = Buffer.alloc(MEMBER.bytes)
    writeMember({ family: 4, address: `10.244.0.${last}`, port: 8080 }, 0, bytes, 0)
    return hex(bytes)
  }
  t.same(after({}), [])
  t.same(after({ affinitySeconds: 5 }), [key(1), key(2)])
  t.same(after({ affinitySeconds: 5, targets: [target(2), target(3)] }), [key(2), key(3)])
  t.same(
    after({ affinitySeconds: 5, targets: [target(5), target(6)] }),
    'no room',
    'both sets have to be there for a moment',
  )
})

t.test('room for what there is, and some more', async (t) => {
  t.same(capacityFor([], EMPTY, read), { frontends: 256, slots: 1024, members: 256 })
  const many = Array.from({ length: 30_000 }, (_, i) =>
    serviceOf({ service: `shop/s${i}`, targets: [target(1), target(2), target(3)], affinitySeconds: 1 }),
  )
  t.same(capacityFor([], sortedList(many, byService), read), { frontends: 65_536, slots: 262_144, members: 262_144 })
})
