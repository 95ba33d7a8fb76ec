// An OpenID provider (oidc-provider, which is certified) at which people sign in and consent, as its own
// pages for development have it. It listens on loopback, and tells its issuer in the first line it prints.
// Arguments: the resource that tokens are for, and the secret of the resource server `rs`.
import { createServer } from 'node:http';
import { createRequire } from 'node:module';

const require = createRequire(new URL('./node/package.json', import.meta.url));
const { Provider, errors } = await import(require.resolve('oidc-provider'));
const [resource, secret] = process.argv.slice(2);
const server = createServer();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'rs', client_secret: secret, redirect_uris: [], response_types: [], grant_types: [],
    }],
    scopes: ['openid', 'offline_access', 'read'],
    cookies: { keys: [secret] },
    pkce: { required: () => true },
    rotateRefreshToken: true,
    ttl: { AccessToken: 3600, RefreshToken: 86400, Grant: 86400, Session: 3600, Interaction: 600 },
    clientDefaults: { grant_types: ['authorization_code'] },
    features: {
      registration: { enabled: true },
      revocation: { enabled: true, allowedPolicy: (_, client, token) => token.clientId === client.clientId },
      introspection: { enabled: true, allowedPolicy: (_, client) => client.clientId === 'rs' },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        useGrantedResource: () => false,
        getResourceServerInfo(_, asked) {
          if (asked !== resource) throw new errors.InvalidTarget();
          return { scope: 'read', audience: resource, accessTokenTTL: 3600, accessTokenFormat: 'opaque' };
        },
      },
    },
  });
  for (const event of ['authorization.error', 'grant.error', 'registration_create.error', 'revocation.error', 'server_error']) {
    provider.on(event, (_, error) => console.error(event, error.message, error.error_description));
  }
  server.on('request', provider.callback());
  console.log(issuer);
});
