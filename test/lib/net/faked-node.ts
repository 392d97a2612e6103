// A node as far as its relay is concerned, for tests that run it at another time: identity, a session, the API. Prints what
// comes about, a line of JSON each.
//   node faked-node.ts STATE_DIR

import { createApiClient } from '../../../lib/k8s/api-client.ts'
import { NODES } from '../../../lib/k8s/objects.ts'
import { createLog } from '../../../lib/log.ts'
import { apiClientOptions } from '../../../lib/net/api-access.ts'
import { followIdentity } from '../../../lib/net/identity-loop.ts'
import { openRelaySession } from '../../../lib/net/relay-session.ts'
import { SIGNAL_PATH } from '../../../lib/wire/signal.ts'

const [stateDir = ''] = process.argv.slice(2)
const say = (event: string, more: object = {}): void =>
  void process.stdout.write(`${JSON.stringify({ event, at: new Date().toISOString(), ...more })}\n`)
const life = new AbortController()
const log = createLog('agent', 'silent')
const identity = await followIdentity({ stateDir, daemon: 'agent', log }, life.signal)
say('starts', { isBehind: identity.clock.isBehind() })
identity.onChange(() => say('identity', { isBehind: identity.clock.isBehind() }))
openRelaySession(
  {
    identity,
    path: SIGNAL_PATH,
    maxPayloadBytes: 1024,
    log,
    onOpen: () => say('session'),
    onMessage: () => undefined,
    onChange: () => undefined,
  },
  life.signal,
)
const client = createApiClient(
  apiClientOptions(identity.server, identity, { serverToken: undefined, serverCa: undefined }),
)
client.get(NODES, { name: 'h1' }).then(
  (answer) => say('api', { answer }),
  (error: Error) => say('api', { error: error.message }),
)
