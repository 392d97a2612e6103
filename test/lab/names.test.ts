import t from 'tap'
import { linkOf, parseId, parsePoolName, podHostOf, repeated } from './names.ts'

t.test('lab ids', async (t) => {
  const rows = [
    { text: 'lab', good: true },
    { text: 'a2', good: true },
    { text: 'a-b', good: false },
    { text: '2a', good: false },
    { text: '', good: false },
    { text: 'Lab', good: false },
    { text: 'abcdefghijklm', good: false },
  ]
  for (const { text, good } of rows) {
    if (good) t.equal(parseId(text), text, text)
    else t.throws(() => parseId(text), /is no lab id/, JSON.stringify(text))
  }
})

t.test('pool names', async (t) => {
  for (const text of ['north', 'n', '7', 'a-b-c', '0-0']) t.equal(parsePoolName(text), text, text)
  for (const text of ['', 'North', '-a', 'a-', 'a.b', 'a_b', 'x'.repeat(64), '../x', 'a b'])
    t.throws(() => parsePoolName(text), /is no pool name/, JSON.stringify(text))
  t.throws(() => parsePoolName('cloud'), /leave it out/, 'the cloud is always there')
})

t.test('link names fit and differ by lab, host and kind', async (t) => {
  const host = 'a-very-long-name-of-a-node-that-fits-into-no-link-name-1'
  const names = [
    linkOf('pod', 'lab', host),
    linkOf('port', 'lab', host),
    linkOf('pod', 'lab2', host),
    linkOf('pod', 'lab', `${host}1`),
  ]
  t.strictSame(repeated(names), [])
  for (const name of names) t.equal(name.length, 15, name)
  t.equal(linkOf('pod', 'lab', host), names[0], 'the same each time')
})

t.test('hosts of pods', async (t) => {
  t.equal(podHostOf('h1', 'web'), 'h1-web')
  t.equal(podHostOf('h1', 'h1-web'), 'h1-web', 'a node is not named twice')
  t.equal(podHostOf('h1', 'h10-web'), 'h1-h10-web')
})
