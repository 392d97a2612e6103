// What the linter's rules cannot say of imports: which way they run, and which library has one user only.

import { globSync, readFileSync } from 'node:fs'
import { dirname, join, normalize } from 'node:path'
import t from 'tap'

const ROOT = join(import.meta.dirname, '../..')
const AREAS = ['agent', 'gateway', 'relay', 'lib', 'cli', 'test', 'bench'] as const
type Area = (typeof AREAS)[number]

/** cli → daemons → lib; daemons never import each other; nothing that ships imports test or bench. */
const MAY_IMPORT: Readonly<Record<Area, readonly Area[]>> = {
  lib: ['lib'],
  agent: ['agent', 'lib'],
  gateway: ['gateway', 'lib'],
  relay: ['relay', 'lib'],
  cli: ['cli', 'agent', 'gateway', 'relay', 'lib'],
  test: AREAS,
  bench: AREAS,
}
const ONLY_IN: Readonly<Record<string, string>> = {
  execa: 'lib/net/exec.ts',
  pino: 'lib/log.ts',
  'prom-client': 'lib/metrics.ts',
  '@peculiar/x509': 'lib/certificates.ts',
}

const files = AREAS.flatMap((area) => globSync(`${area}/**/*.ts`, { cwd: ROOT }))
const importsOf = (file: string): readonly string[] =>
  [...readFileSync(join(ROOT, file), 'utf8').matchAll(/(?:^|[^.\w])(?:from|import)\s*\(?\s*'([^']+)'/g)].map(
    ([, name]) => name!,
  )
const packageOf = (name: string): string => name.split('/', name.startsWith('@') ? 2 : 1).join('/')

t.ok(files.length > 50, `${files.length} files`)
t.same(importsOf('test/lint/imports.test.ts').slice(0, 3), ['node:fs', 'node:path', 'tap'], 'imports are found')

const astray = files.flatMap((file) =>
  importsOf(file).flatMap((name) => {
    if (name.startsWith('.')) {
      const [from, to] = [file, normalize(join(dirname(file), name))].map((path) => path.split('/')[0] as Area)
      return AREAS.includes(to!) && !MAY_IMPORT[from!].includes(to!)
        ? [`${file} imports ${name}: ${from} may not import ${to}`]
        : []
    }
    const only = ONLY_IN[packageOf(name)]
    const exempt = only === undefined || file === only || file.startsWith('test/') || file.endsWith('.d.ts')
    return exempt ? [] : [`${file} imports ${name}: only ${only} may`]
  }),
)
t.same(astray, [], 'imports run cli → daemons → lib, and libraries have one user')

const shipped = files.filter((file) => !file.startsWith('test/') && !file.startsWith('bench/'))
const costly = shipped.filter((file) =>
  /^import (?!type )[^\n]*'node:https?'/m.test(readFileSync(join(ROOT, file), 'utf8')),
)
t.same(costly, [], 'node:http is taken from lib/net/http.ts, since importing it loads undici')
