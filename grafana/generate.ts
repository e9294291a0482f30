// Writes dashboards/signalbox.json from the code: `npm run grafana:generate`. The file is committed, because Grafana
// reads it where nothing of ours runs, and a test holds it to the code.
import { writeFileSync } from 'node:fs'
import { dashboardText } from './dashboard.ts'

writeFileSync(new URL('dashboards/signalbox.json', import.meta.url), dashboardText())
