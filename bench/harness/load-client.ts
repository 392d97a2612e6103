// The bench's end of a load process: asks it for calls, gets their times.

import type { ChildProcess } from 'node:child_process'
import { createInterface } from 'node:readline'

export type Load = {
  /** @throws Error with what the process said, if a call failed. */
  readonly run: (calls: number) => Promise<readonly number[]>
  readonly close: () => void
}

/** @param child a bench/harness/http-load.ts with piped stdin, stdout and stderr, wherever it runs. */
export function driveLoad(child: ChildProcess): Load {
  let complaint = ''
  child.stderr!.setEncoding('utf8').on('data', (text: string) => (complaint = (complaint + text).slice(-4096)))
  const lines = createInterface({ input: child.stdout! })[Symbol.asyncIterator]()
  return {
    run: async (calls) => {
      child.stdin!.write(`${calls}\n`)
      const { value, done } = (await lines.next()) as IteratorResult<string, undefined>
      if (done) throw new Error(`the load ended: ${complaint.trim()}`)
      return JSON.parse(value) as readonly number[]
    },
    close: () => child.stdin!.end(),
  }
}
