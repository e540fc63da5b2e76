/* agent_call: one command to the agent's control socket and its answer. Blocking: command lines only. */
#ifndef AGENT_CTL_AGENT_CALL_H
#define AGENT_CTL_AGENT_CALL_H

#include <jansson.h>

#include "base/status.h"

#define AGENT_SOCKET "/run/writebackd/control.sock"

/* Takes the input. STATUS_CHANNEL_REFUSED where no agent listens, STATUS_LOCAL_PERMISSION where this user may not ask, STATUS_CHANNEL_TIMEOUT where it does not answer.
 * On STATUS_OK *ret_answer is an object, which may hold "error". */
enum status agent_call(const char *socket_path, json_t *take_input, json_t **ret_answer) MUST_USE;

#endif
