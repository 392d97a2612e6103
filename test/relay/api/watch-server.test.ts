import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import { setTimeout as wait } from 'node:timers/promises'
import t from 'tap'
import { builtIn } from '../../../relay/api/kinds.ts'
import { Registry } from '../../../relay/api/registry.ts'
import { serveWatch } from '../../../relay/api/watch-server.ts'

t.test('a change between the end of a watch and the last byte of it is not written', async (t) => {
  const kind = builtIn('Node')
  const registry = new Registry({ version: 1, base: 1, lastChange: new Map(), objects: [] })
  const add = (name: string) =>
    registry.commit(registry.plan({ kind, namespace: '', name, object: { metadata: { name } } }, Date.now()))
  // Without a connection it ends and never closes, as one whose reader is slow.
  const response = new ServerResponse(new IncomingMessage(new Socket()))
  const errors: Error[] = []
  response.on('error', (error) => errors.push(error))
  const watch = { kind, matches: () => true, from: undefined, bookmarks: true, marksInitial: false, timeoutMs: 20 }
  await serveWatch(registry, response, { ...watch, representation: { form: 'object' } })
  add('a')
  await wait(50)
  t.ok(response.writableEnded)
  add('b')
  await wait(5)
  t.strictSame(errors, [])
  response.emit('close')
})
