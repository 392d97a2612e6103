// Where the programs of root are: cron, a plain su and service managers leave these folders out of PATH.

/** As on Debian. */
const ROOT_PATH: readonly string[] = ['/usr/local/sbin', '/usr/sbin', '/sbin']

/** @returns a PATH on which the programs of root are found too. */
export const withRootPath = (path = '/usr/local/bin:/usr/bin:/bin'): string =>
  [...new Set([...path.split(':'), ...ROOT_PATH])].join(':')
