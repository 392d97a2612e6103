import { readFileSync } from 'node:fs'
import t from 'tap'
import { VERSION } from '../../lib/version.ts'

const manifest = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as { version: string }
t.equal(VERSION, manifest.version, 'the version is that of package.json')
