// What users of other tunnels report, and what each command of kubectl asks of one: each trap with the tests that hold us
// out of it, by their names. A test that is renamed or goes takes its row along, or this fails.

import { readFile } from 'node:fs/promises'
import t from 'tap'

/** Beside this file, and in other folders of test/. */
const WAYS = 'relay/ways-in.test.ts'
const STREAMS = 'relay/streams.test.ts'
const SESSIONS = 'relay/session-server.test.ts'
const EGRESS = 'relay/egress-server.test.ts'
const REPLICAS = 'relay/forward-server.test.ts'
const SLOW = 'relay/slow-link.test.ts'
const HOSTS = 'relay/ops-netns.test.ts'
const HOSTILE = 'relay/hostile-clients.test.ts'
const TARGETS = 'agent/ops-targets.test.ts'
const KUBECTL = 'lab/kubectl'

type Row = readonly [trap: string, ...tests: readonly (readonly [file: string, name: string])[]]

const REPORTED: readonly Row[] = [
  [
    'one slow reader stalls all others',
    [STREAMS, '50 stalled readers and 50 stalled uploads delay nobody and keep little'],
  ],
  ['channels fill up, and bytes of a large copy are lost', [WAYS, 'a reader that pauses and goes on gets every byte']],
  [
    'dials that nobody answers pile up until memory is gone',
    [WAYS, 'hundreds of CONNECTs to who does not answer all end, and leave nothing'],
    [STREAMS, 'dials end in time, and when their client is gone'],
  ],
  [
    'routines and descriptors leak',
    [STREAMS, 'thousands of streams leave nothing behind'],
    [STREAMS, 'an abort passes in both directions within a second and frees everything'],
  ],
  [
    'cp and logs hang until the agent is restarted',
    [WAYS, 'transfers that are cut in the middle leave nothing, and the next one passes'],
  ],
  [
    'dead agents are still selected',
    [SESSIONS, 'a dead agent is noticed when it is dialled, and the dial goes to its next session'],
    [SESSIONS, 'a dead link is noticed without a dial too, on both sides; a living one is left alone'],
    [SESSIONS, 'streams on a session that was cut end when the next is there'],
    [HOSTS, 'a link that dies without a word is told within 10 s'],
  ],
  [
    'agents reach some replicas and not others: no agent available',
    [REPLICAS, 'agents hold two sessions, and every relay reaches every node'],
    [REPLICAS, 'a relay dies: its nodes are reached by the others at once, and agents find another'],
  ],
  [
    'closes race: one end closes while the other still sends',
    [WAYS, 'an answer may come after the end of the question'],
    [WAYS, 'a question may go on after the end of the answer'],
    [STREAMS, 'a stream to the kubelet, byte for byte, each half to its own end'],
  ],
  [
    'bytes that come with the request are dropped',
    [WAYS, 'bytes that come with the request are not lost'],
    [HOSTILE, 'what comes with the request to switch protocols is not lost'],
  ],
  ['a slow consumer freezes pings', [SLOW, 'streams that nobody reads silence no ping']],
  ['pause and resume lock up', [WAYS, 'a reader that pauses and goes on gets every byte']],
  [
    'a large send buffer is taken for a dead link',
    [SLOW, 'a link full of bulk is not taken for a dead one, and can be dialled over'],
  ],
  [
    'with two replicas, rules of the firewall lead half of the calls to the wrong one',
    ['relay/replica-ways.test.ts', 'whichever relay is asked, by each way in, twenty times'],
  ],
  [
    'a node claims another’s name',
    [SESSIONS, 'nobody takes the place of another node'],
    ['relay/egress-route.test.ts', 'where kube-apiserver gets to'],
  ],
  [
    'the agent dials whatever it is told',
    [TARGETS, 'where a dial leads'],
    [TARGETS, 'where a declared name may lead'],
    ['relay/egress-route.test.ts', 'what is never dialled, in every way to write it'],
  ],
]

const ASKED: readonly Row[] = [
  ['no delay for small packets', [WAYS, 'key strokes leave at once']],
  [
    'no limit of idle time',
    [WAYS, 'a stream may be silent for longer than any time limit, in every way'],
    [EGRESS, 'over TLS, for the certificates that may'],
  ],
  [
    'all data before the end: the exit code is the last message',
    [WAYS, 'all data comes before the end: the exit code is the last message'],
    [STREAMS, 'all data before the end: the exit code is the last message'],
  ],
  [
    'an abort passes both ways within a second',
    [WAYS, 'Ctrl-C of a follower reaches the target, and the death of the target its client'],
    [HOSTS, 'Ctrl-C of a follower reaches the kubelet within a second'],
    [REPLICAS, 'a stream that breaks on one side breaks on the other'],
  ],
  [
    'half-close, by TLS too, where Node ends both halves',
    [EGRESS, 'the proxy on the port of the relay asks who it is'],
  ],
  [
    'kube-apiserver: exactly 200, and nothing with it',
    [EGRESS, 'a stream through the socket: exactly 200, then bytes, each half to its end'],
    [EGRESS, 'nothing comes with the 200, even from a target that speaks first'],
  ],
  ['kube-apiserver: the reason phrase is all that users see', [EGRESS, 'the reason phrase says what is wrong']],
  [
    'kube-apiserver waits for an answer without end: the relay must not',
    [EGRESS, 'a client that leaves while the dial is under way, and one that says nothing'],
  ],
  [
    'Go sends the names of hosts in TLS, and not their addresses',
    [HOSTS, 'clients that dial the address of a node and name none'],
    [HOSTILE, 'ClientHellos at the port of kubelets'],
  ],
  ['port-forward: one stream for all connections of a kubectl', [`${KUBECTL}/port-forward.ts`, 'port-forward']],
  ['exec and attach by WebSocket and SPDY, with a terminal', [`${KUBECTL}/exec.ts`, 'exec -it']],
  ['cp of much', [`${KUBECTL}/copy.ts`, 'cp']],
  ['logs that are followed', [`${KUBECTL}/logs.ts`, 'logs -f']],
  ['metrics-server and Prometheus dial kubelets themselves', [HOSTS, 'every way in, with TLS from end to end']],
]

for (const [title, rows] of Object.entries({ 'reported of others': REPORTED, 'asked by kubectl': ASKED }))
  t.test(title, async (t) => {
    for (const [trap, ...tests] of rows)
      for (const [file, name] of tests) {
        const text = await readFile(new URL(`../${file}`, import.meta.url), 'utf8')
        t.ok(text.includes(`t.test('${name}'`) || text.includes(`name: '${name}'`), `${trap}: ${file}, ${name}`)
      }
  })
