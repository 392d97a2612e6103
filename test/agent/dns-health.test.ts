import t from 'tap'
import { DnsHealth } from '../../agent/dns-health.ts'

const [a, b, c] = ['192.0.2.1', '192.0.2.2', '192.0.2.3'].map((address) => ({ address, port: 53, family: 4 as const }))
const all = [a!, b!, c!]

t.test('who is asked, and in which order', async (t) => {
  const rows: readonly { name: string; failures: (typeof all)[number][]; random?: number; order: typeof all }[] = [
    { name: 'all well', failures: [], order: all },
    { name: 'one failure', failures: [a!], order: all },
    { name: 'two failures', failures: [a!, a!], order: [b!, c!] },
    { name: 'all down: one by chance', failures: [a!, a!, b!, b!, c!, c!], random: 0, order: [a!] },
    { name: 'all down: another', failures: [a!, a!, b!, b!, c!, c!], random: 0.99, order: [c!] },
  ]
  for (const { name, failures, random = 0.5, order } of rows) {
    const health = new DnsHealth()
    for (const server of failures) health.failed(server)
    t.strictSame(health.order(all, random), order, name)
  }
  t.strictSame(new DnsHealth().order([], 0.5), [], 'nobody')
})

t.test('a first failure begins the checks, an answer ends them; ports are told apart', async (t) => {
  const health = new DnsHealth()
  const other = { ...a!, port: 5353 }
  t.equal(health.failed(a!), true)
  t.equal(health.failed(a!), false)
  t.equal(health.isDown(other), false)
  t.equal(health.isSuspect(a!), true)
  health.answered(a!)
  t.equal(health.isSuspect(a!), false)
  t.equal(health.failed(a!), true)
  t.equal(health.isDown(a!), false)
})
