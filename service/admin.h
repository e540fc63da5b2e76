/* admin: the subcommands that work on files and the store, beside a running server or without one. Each returns a sysexits code. */
#ifndef SERVICE_ADMIN_H
#define SERVICE_ADMIN_H

#include "service/settings.h"

struct admin_options {
	bool json;
	int64_t ttl_ms;                /* ticket; 0: as configured */
	int64_t limit;                 /* operations */
	const char *root_file;         /* rotate-keys; NULL: in the state directory */
	bool drop_old;                 /* rotate-keys: no older key stays in the set */
	const char *const *arguments;  /* what stands behind the subcommand; ends with NULL */
};

/* The sysexits code of a status: the same for `serve`, by which systemd knows what no restart heals. */
int admin_exit_code(enum status status);

int admin_init(const struct settings *settings, const struct admin_options *options);
int admin_rotate_keys(const struct settings *settings, const struct admin_options *options);
int admin_ticket(const struct settings *settings, const struct admin_options *options);
int admin_agents(const struct settings *settings, const struct admin_options *options);
int admin_revoke(const struct settings *settings, const struct admin_options *options);
int admin_release(const struct settings *settings, const struct admin_options *options);
int admin_operations(const struct settings *settings, const struct admin_options *options);
int admin_operation(const struct settings *settings, const struct admin_options *options);
int admin_api_key(const struct settings *settings, const struct admin_options *options);

#endif
