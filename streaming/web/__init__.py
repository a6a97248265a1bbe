"""What the HTTP servers share (`serve`, `apiserver`, `board`): who may connect and ask, for how long it may take.

listen (address, token, TLS) -> server (accepts connections, and not too many) -> connection (a peer that is too slow is
dropped) -> access (Host, Origin, token, content type, sizes). Applications are handed in; nothing here knows one.
client is the other side: how our own clients reach a server.

May be imported by: `predict`, `standin`, `board`, `store.openmldb` (the client), `cli`. May import: `config`, `errors`.
"""
