// The command as a person runs it.

import { execFile } from 'node:child_process'
import { resolve } from 'node:path'

export const MAIN = resolve(import.meta.dirname, '../../cli/main.ts')

export type Answer = { readonly code: number; readonly stdout: string; readonly stderr: string }

/** Resolves when it has ended. */
export const fulmar = (...argv: readonly string[]): Promise<Answer> =>
  new Promise((done) => {
    const child = execFile(process.execPath, [MAIN, ...argv], (_error, stdout, stderr) =>
      done({ code: child.exitCode ?? -1, stdout, stderr }),
    )
  })
