/* connection: one client: frames, faults, dispatch. Lives from accept to the peer's close, an unbind, a cut, or server's end. */
#ifndef MOCK_DIRECTORY_CONNECTION_H
#define MOCK_DIRECTORY_CONNECTION_H

#include "server.h"

void connection_accept(struct server *server, evutil_socket_t fd, bool encrypted);
void connection_free_all(struct server *server);
unsigned connection_count(const struct server *server);

#endif
