// A node that reboots under a follower of its log: gone without a word, and back a moment later with new processes.

import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Lab } from '../lab.ts'
import type { Kubectl } from './session.ts'
import type { Outcome } from './suite.ts'

export const REBOOT = 'logs through a reboot'

const AWAY_MS = 2_000
/** The relay learns of the death when the agent dials anew, or when it has heard nothing for 40 s. */
const BACK_WITHIN_MS = 60_000

/** Who followed the log is told that it ended, what it said before can still be read, and it can be followed again. */
export async function reboot(
  lab: Lab,
  kubectl: Kubectl,
  where: {
    readonly pool: string
    readonly node: string
    readonly namespace: string
    readonly pod: string
    readonly container: string
  },
): Promise<Outcome> {
  const { pool, node, namespace, pod, container } = where
  const logs = ['logs', '-n', namespace, pod, '-c', container]
  const startedMs = performance.now()
  const elapsed = (): number => Math.round(performance.now() - startedMs)
  const end = (ok: boolean, detail: string): Outcome => ({
    ...{ name: REBOOT, protocol: undefined, ok, detail },
    ms: elapsed(),
  })
  const before = await textOf(kubectl, logs)
  const following = kubectl.start([...logs, '-f'], {})
  const ended = once(following, 'close')
  await once(following.stdout!, 'data')
  // The connections of a machine that loses its power end without a FIN or a reset.
  await lab.cut('wan', pool)
  lab.kill(node, 'agent')
  lab.kill(pod, 'pod')
  await sleep(AWAY_MS)
  await lab.heal(pool)
  if ((await Promise.race([ended, sleep(BACK_WITHIN_MS, undefined, { ref: false })])) === undefined) {
    following.kill('SIGKILL')
    return end(false, `logs -f goes on ${BACK_WITHIN_MS / 1000} s after its node was gone`)
  }
  const goneMs = elapsed()
  const again = await textWithin(kubectl, [...logs, '--previous'], (text) => text === before && before !== '')
  if (again !== before) return end(false, `--previous: ${JSON.stringify(again)}, not ${JSON.stringify(before)}`)
  const backMs = elapsed()
  const followed = kubectl.start([...logs, '-f'], {})
  const [first] = (await Promise.race([
    once(followed.stdout!, 'data'),
    sleep(BACK_WITHIN_MS, [''], { ref: false }),
  ])) as [Buffer | string]
  followed.kill('SIGKILL')
  if (String(first) === '') return end(false, 'logs -f brings nothing after the reboot')
  return end(
    true,
    `away for ${AWAY_MS / 1000} s: logs -f ended after ${goneMs} ms, --previous had it all after ${backMs} ms, -f goes on`,
  )
}

/** The last of what it prints, until that is as wanted. */
async function textWithin(kubectl: Kubectl, args: readonly string[], is: (text: string) => boolean): Promise<string> {
  for (const deadline = Date.now() + BACK_WITHIN_MS; ; await sleep(200)) {
    const text = await textOf(kubectl, args)
    if (is(text) || Date.now() > deadline) return text
  }
}

async function textOf(kubectl: Kubectl, args: readonly string[]): Promise<string> {
  const child = kubectl.start(args, {})
  let text = ''
  child.stdout!.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
  child.stderr!.resume()
  child.stdin!.end()
  await once(child, 'close')
  return text
}
