// kubectl exec and attach: output, exit codes, the end of stdin, terminals.

import { randomBytes } from 'node:crypto'
import { sha256 } from './copy.ts'
import { brief, check, reader, until, type Case } from './session.ts'

export const EXEC: readonly Case[] = [
  {
    name: 'exec',
    perProtocol: true,
    run: async (session) => {
      const both = await session.exec(['sh', '-c', 'echo out; echo err >&2; exit 7'])
      check(both.code === 7, `exit code ${both.code} instead of 7: ${both.stderr}`)
      check(both.stdout.toString() === 'out\n', `stdout ${brief(both.stdout.toString())}`)
      check(both.stderr === 'err\ncommand terminated with exit code 7\n', `stderr ${brief(both.stderr)}`)
      const quiet = await session.exec(['true'])
      check(quiet.code === 0 && quiet.stdout.length === 0 && quiet.stderr === '', `true: ${quiet.stderr}`)
      return 'stdout, stderr and exit code 7'
    },
  },
  {
    name: 'exec -i',
    perProtocol: true,
    run: async (session) => {
      const input = randomBytes(4 << 20)
      // wc sees all of it only if the end of stdin is told apart from the end of the connection.
      const counted = await session.exec(['sh', '-c', 'sha256sum; echo done'], { input }, ['-i'])
      check(
        counted.stdout.toString() === `${sha256(input)}  -\ndone\n`,
        `${counted.code}, ${brief(counted.stdout.toString())}, ${brief(counted.stderr)}`,
      )
      const echoed = await session.exec(['cat'], { input }, ['-i'])
      check(echoed.stdout.equals(input), `${echoed.stdout.length} of ${input.length} bytes came back`)
      return '4 MiB there, and there and back; the end of stdin arrives'
    },
  },
  {
    name: 'exec -it',
    perProtocol: true,
    run: async ({ kubectl, env, pod }) => {
      const args = ['exec', '-it', ...pod, '-c', 'shell', '--', 'sh']
      const terminal = kubectl.startInTerminal(args, env)
      try {
        const seen = reader(terminal.stdout, args)
        const type = (text: string): void => void terminal.stdin!.write(text)
        terminal.resize({ width: 101, height: 33 })
        await seen.until(/# $/)
        type('tty; stty size\r')
        await seen.until(/\/dev\/pts\/\d+\r\n33 101\r\n# $/)
        terminal.resize({ width: 77, height: 22 })
        type('until stty size | grep "^22 77"; do sleep 0.05; done\r')
        await seen.until(/\n22 77\r\n# $/)
        // Ctrl-C goes to the program in the pod. What is typed before that runs would be flushed by it.
        type("sh -c 'echo sta''rted; exec sleep 100'\r")
        await seen.until(/\nstarted\r\n/)
        type('\u0003')
        await seen.until(/started\r\n\^C\r\n# $/)
        type('exit 5\r')
        const code = await terminal.exited
        check(code === 5, `exit code ${code} instead of 5: ${brief(seen.text())}`)
      } finally {
        terminal.kill()
      }
      return 'a terminal with its size, resized; Ctrl-C; exit code 5'
    },
  },
  {
    name: 'attach',
    perProtocol: true,
    run: async (session) => {
      const args = ['attach', '-i', ...session.pod, '-c', 'echo']
      const child = session.start(...args)
      const word = `hello ${randomBytes(4).toString('hex')}`
      const timer = setInterval(() => child.stdin!.write(`${word}\n`), 500)
      try {
        await until(child, (seen) => seen.includes(word), args)
      } finally {
        clearInterval(timer)
      }
      return 'a line there and back'
    },
  },
]
