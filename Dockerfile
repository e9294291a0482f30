# The router, and the command that brings a ClickHouse server's schema up to date. Node runs the TypeScript as it is; the
# embedded engine stays out, because here ClickHouse is a server.
FROM node:26-slim
WORKDIR /signalbox
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --omit=optional && npm cache clean --force
COPY . .
# Where spans wait for the collector; a volume keeps them over a new container.
RUN mkdir -p .signalbox && chown node:node .signalbox
USER node
ENTRYPOINT ["node", "signalbox.js"]
