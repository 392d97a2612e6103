import t from 'tap'
import {
  bytesText,
  countText,
  durationText,
  listText,
  millisecondsText,
  paragraph,
  renderTable,
  wrapText,
} from '../../lib/text-table.ts'

t.test('columns', async (t) => {
  const columns = [{ title: 'POOLS' }, { title: 'RTT', align: 'right' }, { title: 'WHY' }] as const
  const rows = [
    ['hamburg ↔ sylt', '12.4 ms', ''],
    ['kiel', '1 ms', 'UDP is blocked'],
  ]
  t.equal(
    renderTable(columns, rows),
    [
      '  POOLS               RTT  WHY',
      '  hamburg ↔ sylt  12.4 ms',
      '  kiel               1 ms  UDP is blocked',
      '',
    ].join('\n'),
  )
  t.equal(renderTable(columns, [], ''), 'POOLS  RTT  WHY\n')
})

t.test('a table that would be too wide', async (t) => {
  const columns = [{ title: 'POOL' }, { title: 'DNS', overflow: 'wrap' }, { title: 'WHY', overflow: 'wrap' }] as const
  const rows = [
    ['hamburg', '169.254.20.53 for 10.96.0.10', 'UDP is blocked here'],
    ['sylt', '', 'short'],
  ]
  t.equal(
    renderTable(columns, rows, '  ', 40),
    [
      '  POOL     DNS            WHY',
      '  hamburg  169.254.20.53  UDP is blocked',
      '           for            here',
      '           10.96.0.10',
      '  sylt                    short',
      '',
    ].join('\n'),
  )
  const widest = Math.max(
    ...renderTable(columns, rows, '  ', 10)
      .split('\n')
      .map((line) => line.length),
  )
  t.equal(widest, '  hamburg  169.254.20.53  UDP is'.length + 'blocked here'.length - 'UDP is'.length)
})

t.equal(
  renderTable([{ title: 'WHY', overflow: 'cut' }, { title: 'A' }], [['UDP is blocked here', '1']], '', 20),
  'WHY                A\nUDP is blocked h…  1\n',
  'cut off',
)

t.test('lines', async (t) => {
  t.strictSame(wrapText('', 10), [''])
  t.strictSame(wrapText('a bb ccc', 4), ['a bb', 'ccc'])
  t.strictSame(wrapText('nobody-breaks-this a', 4), ['nobody-breaks-this', 'a'])
  t.equal(paragraph('- ', '  ', 'one two', 6), '- one\n  two\n')
})

const durations: readonly [ms: number, expected: string][] = [
  [-5, '0.0s'],
  [999, '0.9s'],
  [9_999, '9.9s'],
  [10_000, '10s'],
  [59_999, '59s'],
  [60_000, '1m00s'],
  [192_000, '3m12s'],
  [3_600_000, '1h00m'],
  [86_399_000, '23h59m'],
  [90_000_000, '1d01h'],
]
for (const [ms, expected] of durations) t.equal(durationText(ms), expected, `${ms} ms: ${expected}`)

const milliseconds: readonly [ms: number, expected: string][] = [
  [0.0421, '0.042 ms'],
  [1.239, '1.24 ms'],
  [12.44, '12.4 ms'],
  [124.4, '124 ms'],
]
for (const [ms, expected] of milliseconds) t.equal(millisecondsText(ms), expected, expected)

const sizes: readonly [bytes: number, expected: string][] = [
  [0, '0 B'],
  [999, '999 B'],
  [1_000, '1.0 kB'],
  [1_234_567, '1.2 MB'],
  [123_456_789, '123 MB'],
  [5e15, '5000 TB'],
]
for (const [bytes, expected] of sizes) t.equal(bytesText(bytes), expected, expected)

t.equal(countText(1, 'endpoint'), '1 endpoint')
t.equal(countText(0, 'endpoint'), '0 endpoints')
t.equal(listText(['a', 'b'], 2), 'a, b')
t.equal(listText(['a', 'b', 'c', 'd'], 2), 'a, b and 2 more')
