// Join tokens on disk, in STATE_DIR/issuer/tokens: one file per token, named by the hash of its secret, so that
// `fulmar token create` may add one while the relay runs; beside it, once used, one file that says by whom. Each file
// appears whole or not at all and is never changed, so there is nothing to lock and no crash to fear.

import { createHash, randomBytes } from 'node:crypto'
import { readdir, stat, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { SECRET_BYTES } from '../wire/join.ts'
import { issuerFolder } from './authority.ts'
import { makePrivateFolder, PRIVATE_MODE, readIfPresent, writeNew } from './files.ts'

export type TokenRecord = { readonly node: string; readonly expiresAt: number }
/** Who used a token: SHA-256 of the public key, and the certificate that it was given. */
export type TokenUse = { readonly key: string; readonly certificate: string }

export const MAX_TOKEN_TTL_MS = 24 * 3600_000
/** Expired tokens are kept so long, that whoever tries one is told why it fails. */
const KEEP_EXPIRED_MS = 7 * 86_400_000
/** A file that is still being written after so long has lost its writer. */
const LEFT_OVER_MS = 3600_000

/** @returns the secret, which is nowhere on disk. */
export async function createToken(stateDir: string, node: string, expiresAt: number): Promise<string> {
  const secret = randomBytes(SECRET_BYTES).toString('base64url')
  await makePrivateFolder(folderOf(stateDir))
  await writeNew(recordPath(stateDir, secret), JSON.stringify({ node, expiresAt } satisfies TokenRecord), PRIVATE_MODE)
  return secret
}

export async function readToken(stateDir: string, secret: string): Promise<TokenRecord | undefined> {
  return parse(await readIfPresent(recordPath(stateDir, secret)))
}

export async function readTokenUse(stateDir: string, secret: string): Promise<TokenUse | undefined> {
  return parse(await readIfPresent(usePath(stateDir, secret)))
}

/** Records the use of a token, synced to disk. @returns the use that stands: this one, or another that was first. */
export async function useToken(stateDir: string, secret: string, use: TokenUse): Promise<TokenUse> {
  if (await writeNew(usePath(stateDir, secret), JSON.stringify(use), PRIVATE_MODE)) return use
  return (await readTokenUse(stateDir, secret))!
}

/** Removes tokens that expired long ago, and what writers that died left behind. */
export async function removeOldTokens(stateDir: string, nowMs: number): Promise<void> {
  const folder = folderOf(stateDir)
  await makePrivateFolder(folder)
  for (const name of await readdir(folder)) {
    const [hash, kind, ...rest] = name.split('.')
    if (rest.at(-1) === 'tmp') {
      const { mtimeMs } = await stat(join(folder, name))
      if (nowMs - mtimeMs >= LEFT_OVER_MS) await unlink(join(folder, name))
    }
    if (kind !== 'token' || rest.length > 0) continue
    const record = parse<TokenRecord>(await readIfPresent(join(folder, name)))
    if (record === undefined || nowMs - record.expiresAt < KEEP_EXPIRED_MS) continue
    // The use goes last: a used token must not look unused for a moment, were the clock set back.
    await unlink(join(folder, name))
    await unlink(join(folder, `${hash}.used`)).catch(ignoreAbsent)
  }
}

const folderOf = (stateDir: string): string => join(issuerFolder(stateDir), 'tokens')
const recordPath = (stateDir: string, secret: string): string => join(folderOf(stateDir), `${hashOf(secret)}.token`)
const usePath = (stateDir: string, secret: string): string => join(folderOf(stateDir), `${hashOf(secret)}.used`)
const hashOf = (secret: string): string => createHash('sha256').update(secret).digest('hex')

const parse = <T>(text: string | undefined): T | undefined => (text === undefined ? undefined : (JSON.parse(text) as T))

function ignoreAbsent(error: NodeJS.ErrnoException): void {
  if (error.code !== 'ENOENT') throw error
}
