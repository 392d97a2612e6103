import t from 'tap'
import { MAX_PEERS } from '../../gateway/announcement.ts'
import { Readiness } from '../../gateway/readiness.ts'

function start() {
  const told: string[] = []
  const readiness = new Readiness((node, reply) => void told.push(`${node} ${reply ? 'reply' : 'ask'}`))
  return { readiness, taken: () => told.splice(0) }
}

t.test('a pair without packets says nothing', async (t) => {
  const { readiness, taken } = start()
  readiness.configured('bay1', false)
  readiness.announced('bay1', false)
  readiness.heard('bay1', true, true)
  t.strictSame(taken(), [])
})

t.test('who asks is told: at once, or when its key is known', async (t) => {
  const { readiness, taken } = start()
  readiness.heard('bay1', false, true)
  t.strictSame(taken(), ['bay1 reply'])
  readiness.heard('cape1', false, false)
  t.strictSame(taken(), [])
  readiness.configured('cape1', false)
  t.strictSame(taken(), ['cape1 ask'])
  readiness.configured('cape1', false)
  t.strictSame(taken(), [], 'once')
})

t.test(
  'a pair with packets is told of a key that is new here, and asks a peer that announces itself anew',
  async (t) => {
    const { readiness, taken } = start()
    readiness.configured('bay1', true)
    readiness.announced('bay1', true)
    t.strictSame(taken(), ['bay1 ask', 'bay1 ask'])
  },
)

t.test('names that never become peers are forgotten', async (t) => {
  const { readiness, taken } = start()
  for (let i = 0; i <= MAX_PEERS; i++) readiness.heard(`x${i}`, false, false)
  for (let i = 0; i <= MAX_PEERS; i++) readiness.configured(`x${i}`, false)
  t.equal(taken().length, MAX_PEERS)
})
