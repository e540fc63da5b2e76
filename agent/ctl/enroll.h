/* enroll: proto/README.md section 4 as an administrator's command: ticket, discovery, keys made by the agent, the service's answer, thumbprints to compare. */
#ifndef AGENT_CTL_ENROLL_H
#define AGENT_CTL_ENROLL_H

#include <stdbool.h>

#include "agent/ctl/https.h"

struct enroll_options {
	const char *socket_path;
	const char *issuer;
	const char *ticket_file; /* NULL: standard input where it is no terminal, else a hidden prompt; "-": standard input */
	const char *name;        /* NULL: the host's */
	bool json;
	bool replace;            /* becomes another agent where it is enrolled already */
	struct https_options https;
};

/* Returns a sysexits status; says on stderr what failed. */
int enroll(const struct enroll_options *options);

#endif
