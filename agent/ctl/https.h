/* https: the two requests of an enrolment, over libcurl: TLS verified, no redirects, answers of at most 64 KiB, deadlines. Blocking: writebackctl only. */
#ifndef AGENT_CTL_HTTPS_H
#define AGENT_CTL_HTTPS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

struct https_options {
	const char *ca_file; /* NULL: the system's store */
	const char *proxy;   /* "host:port"; NULL: none; never from the environment */
};

/* GET where `body` is NULL, else POST of it with `content_type`. STATUS_OK whenever an HTTP answer came: its status and its body (malloc'ed, NUL-terminated).
 * Else why is a sentence. */
enum status https_request(const struct https_options *options, const char *url, const char *body, const char *content_type, long *ret_http_status, char **ret_body,
                          char *why, size_t capacity) MUST_USE;

#endif
