import { join } from 'node:path'
import t from 'tap'
import { checkpoint, needsCheckpoint, openDatabase, transaction } from '../../lib/database-client.ts'
import { log, temporaryFolder } from '../relay/api/serving.ts'

t.test('a log that grew is copied into the database by a thread of its own', async (t) => {
  const file = join(temporaryFolder(t), 'some.db')
  const layout = { version: 1, tables: ['row'], schema: 'CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT)' }
  const database = openDatabase(file, { ...layout, asksForCheckpoints: true }, log)
  t.teardown(() => database.close())
  const put = database.prepare('INSERT INTO row VALUES (?, ?)')
  let count = 0
  while (!needsCheckpoint(file) && count < 10_000)
    transaction(database, () => {
      for (let i = 0; i < 100; i++) put.run(++count, 'x'.repeat(4_000))
    })
  t.ok(count > 3_000 && count < 6_000, `after ${count} rows`)
  await checkpoint(file)
  t.notOk(needsCheckpoint(file))
  transaction(database, () => put.run(++count, 'y'))
  t.equal(database.prepare('SELECT count(*) AS n FROM row').get()?.['n'], count)

  await t.rejects(checkpoint(join(temporaryFolder(t), 'none', 'none.db')), 'where there is no file')
})
