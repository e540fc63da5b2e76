/* settings: writebackd.yaml as a struct: one table of keys, and the judgements that a table cannot make.
 * Read at the start and on SIGHUP; owns its strings. */
#ifndef AGENT_SETTINGS_H
#define AGENT_SETTINGS_H

#include "agent/gate/limits.h"
#include "config/config.h"
#include "config/file.h"

enum server_preference { PREFER_LISTED, PREFER_PDC };
struct settings_directory {
	char *name;
	int flavor;                     /* enum directory_kind */
	struct config_strings servers;  /* empty where `discover_domain` names them */
	char *discover_domain, *discover_site;
	int prefer;                     /* enum server_preference */
	char *login_attribute, *default_policy; /* flavor ldap */
	char *base_dn, *ca_file, *crl_file;
	int bind_mechanism;             /* enum bind_mechanism */
	char *bind_dn, *bind_password_file, *bind_principal, *bind_keytab, *bind_certificate, *bind_key;
	struct config_strings domains;
	int policy_hints;               /* enum policy_hints */
	int64_t connections, pipeline, queue;
	int64_t connect_timeout_ms, locate_timeout_ms, write_timeout_ms, policy_cache_ms, idle_probe_ms;
	int scope_users;                /* enum scope_users */
	struct config_strings bases, exclude_bases;
	struct config_strings groups, exclude_groups, protect, exempt_administrators; /* "S-1-…" or DNs */
	struct config_strings allow;    /* words: see settings_allow */
};

struct settings {
	char *state_directory, *channel_socket, *control_socket;
	struct config_strings operations;
	bool allow_unenforced_policy;
	int64_t in_flight, waiting_per_user, per_minute, per_user_hour, latch_per_hour, users, unlocks_per_minute, wrong_per_user_hour, wrong_per_minute, lookups_per_minute;
	int64_t settling_delay_ms, settling_limit_ms;
	int64_t rotate_after_ms;
	char *wrap_key_file;            /* NULL: key files are plain */
	int log_level;                  /* as configured: use settings_log_level() */
	int log_format;                 /* enum log_format */
	int64_t loop_probe_ms;
	struct config_list directories; /* struct settings_directory */
};

extern const struct config_key settings_keys[];

/* Reads and judges. On STATUS_LOCAL_CONFIG `errors` has every finding, and `ret_settings` is empty, unless *ret_document is not NULL: then the file could be read, `ret_settings`
 * holds what it says, and only judgements speak against it. `reader`: for whom files are judged; NULL: for this process. `ret_document` may be NULL. */
enum status settings_load(const char *file, const struct file_reader *reader, struct settings *ret_settings, struct config_errors *errors, struct config_document **ret_document) MUST_USE;
/* The same from memory, for tests. */
enum status settings_parse(const char *name, const char *text, struct settings *ret_settings, struct config_errors *errors) MUST_USE;
void settings_clear(struct settings *settings);

size_t settings_directory_count(const struct settings *settings);
const struct settings_directory *settings_directory_at(const struct settings *settings, size_t index);
/* Bits 1 << enum operation. */
unsigned settings_operations(const struct settings *settings);
/* SCOPE_ALLOW_ bits of scope.allow. */
unsigned settings_allow(const struct settings_directory *directory);
/* The bit of one of its words, 0 for another. */
unsigned settings_allow_bit(const char *word);
/* LOG_DEBUG to LOG_CRIT. */
int settings_log_level(const struct settings *settings);
void settings_limits(const struct settings *settings, struct limits_settings *ret_limits);

#endif
