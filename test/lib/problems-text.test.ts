import t from 'tap'
import { problemsOf } from '../../lib/problems-text.ts'
import type { AgentStatus, MetadataStatus } from '../../lib/status.ts'

const agent = (metadata: MetadataStatus): AgentStatus => ({
  kind: 'agent',
  version: '0',
  node: 'h1',
  pool: 'hamburg',
  startedAt: 0,
  dns: { addresses: [], queries: 0, takeover: [] },
  services: { count: 0, endpoints: 0, path: 'nft' },
  gateway: undefined,
  problems: [],
  metadata,
})

t.test('metadata', (t) => {
  const server = 'https://203.0.113.10'
  const base = { server, objects: {} }
  const diskError = 'store.db: database or disk is full; free or repair the disk'
  const forgets = `forgets with a restart what it learns now: ${diskError}`
  const offline = `works from what is on disk, since nothing comes from ${server}: why`
  const rows: readonly [metadata: MetadataStatus, expected: readonly string[]][] = [
    [{ ...base, source: 'cloud' }, []],
    [{ ...base, source: 'cloud', diskError }, [forgets]],
    [{ ...base, source: 'disk', error: 'why' }, [offline]],
    [{ ...base, source: 'disk', error: 'why', diskError }, [offline, forgets]],
    [{ ...base, source: 'none' }, [`has no metadata yet, since nothing comes from ${server}`]],
  ]
  for (const [metadata, expected] of rows) t.same(problemsOf(agent(metadata), 0), expected, metadata.source)
  t.end()
})
