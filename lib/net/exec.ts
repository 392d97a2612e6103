// Running a program of the host: wg, wireguard-go, nft, conntrack. The only user of execa.

/** A program that could not be run or that exited with an error; the message names the command and what it printed. */
export class ExecError extends Error {
  readonly code = 'FULMAR_EXEC'
  override readonly name = 'ExecError'
  readonly stderr: string
  constructor(command: string, reason: string, stderr: string, cause: unknown) {
    super(`${command}: ${reason}`, { cause })
    this.stderr = stderr
  }
}

const TIMEOUT_MS = 10_000

/** Runs a program to its end. @returns its stdout. @throws ExecError, also after 10 s. */
export async function run(
  program: string,
  args: readonly string[],
  options: { input?: string; env?: NodeJS.ProcessEnv } = {},
): Promise<string> {
  // Loading execa costs 60 ms: not before the first program is run.
  const { execa, ExecaError } = await import('execa')
  try {
    const { stdout } = await execa(program, args, { timeout: TIMEOUT_MS, ...options })
    return stdout
  } catch (error) {
    const command = [program, ...args].join(' ')
    if (!(error instanceof ExecaError)) throw error
    if (error.code === 'ENOENT') throw new ExecError(command, `${program} is not installed`, '', error)
    const stderr = String(error.stderr ?? '').trim()
    throw new ExecError(command, stderr === '' ? error.shortMessage : stderr, stderr, error)
  }
}
