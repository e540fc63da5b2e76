/* control: the test's hand on the server: a unix socket that takes one command a line and answers "ok …" or "error …". */
#ifndef MOCK_DIRECTORY_CONTROL_H
#define MOCK_DIRECTORY_CONTROL_H

#include "server.h"

struct control_socket;
/* NULL: said on stderr. */
struct control_socket *control_listen(struct server *server, const char *path);
void control_free(struct control_socket *control);

#endif
