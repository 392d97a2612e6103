import t from 'tap'
import { findingsOf, type Figures } from '../../../bench/service/figures.ts'
import { KINDS, type Kind } from '../../../bench/service/kinds.ts'
import { studyResultOf } from '../../../bench/harness/findings.ts'

const BASE: Figures = {
  rttP50: 20,
  rttP99: 30,
  connectP50: 16,
  connectP99: 40,
  firstAnswerP50: 50,
  requests1: 50_000,
  requests32: 100_000,
  gigabits: 20,
  cpu: 10,
}
/** Every round is some per cent slower than the one before, whoever is asked. */
const roundsWith = (more: Partial<Record<Kind, Partial<Figures>>>): readonly ReadonlyMap<Kind, Figures>[] =>
  Array.from({ length: 15 }, (_, i) => {
    const drift = (figures: Figures): Figures => ({ ...figures, rttP50: figures.rttP50 * (1 + i / 20) })
    return new Map(KINDS.map((kind) => [kind, drift({ ...BASE, ...more[kind] })]))
  })
const failing = (more: Partial<Record<Kind, Partial<Figures>>>): readonly string[] =>
  studyResultOf({ text: '' }, { findings: findingsOf(roundsWith(more)), notes: [] })
    .findings.filter(({ holds }) => !holds)
    .map(({ name }) => name)

const rows: readonly [name: string, more: Partial<Record<Kind, Partial<Figures>>>, failing: readonly string[]][] = [
  ['all equal', {}, []],
  ['BPF at its bounds', { bpf: { rttP50: 20.6, connectP50: 17.6, requests1: 48_500, requests32: 97_000 } }, []],
  ['BPF slower in RTT', { bpf: { rttP50: 20.7 } }, ['rttP50Bpf']],
  ['BPF slower in connect', { bpf: { connectP50: 17.7 } }, ['connectP50Bpf']],
  ['BPF with fewer requests', { bpf: { requests32: 96_000 } }, ['requests32Bpf']],
  ['BPF within what equal sides differ by', { bpf: { rttP50: 21 }, again: { rttP50: 22.2 } }, []],
  ['nft may be slower', { nft: { rttP50: 22.9, connectP50: 30 } }, []],
  ['but not by much', { nft: { rttP50: 23.1 } }, ['rttP50Nft']],
  ['others have no bounds', { pipe: { rttP50: 100 }, chains: { rttP50: 40 } }, []],
]
for (const [name, more, expected] of rows) t.same(failing(more), expected, name)

t.test('a kind that is left out has no figures', async (t) => {
  const rounds = roundsWith({}).map((round) => new Map([...round].filter(([kind]) => kind !== 'nginx')))
  const findings = findingsOf(rounds)
  t.equal(findings.length, 9 * 6)
  t.notOk(findings.some(({ title }) => title.includes('nginx')))
})
