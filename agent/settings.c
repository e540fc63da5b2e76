#include "agent/settings.h"

#include <string.h>

#include "agent/gate/scope.h"
#include "agent/settings_judge.h"
#include "base/log.h"
#include "proto/messages.h"

#define SECOND_MS 1000
#define MINUTE_MS (60 * SECOND_MS)
#define HOUR_MS (60 * MINUTE_MS)
#define DAY_MS (24 * HOUR_MS)
#define AT(member) offsetof(struct settings_directory, member)

static const struct config_key directory_keys[] = {
	{ "name", CONFIG_STRING, AT(name), NULL, .required = true, .min = 1, .max = 63, .help = "Name in requests, results and logs", .wanted = "give the directory a name" },
	{ "flavor", CONFIG_CHOICE, AT(flavor), "active-directory", .choices = "active-directory|ldap", .help = "Kind of directory: Active Directory and Samba, or OpenLDAP and 389 Directory Server" },
	{ "servers", CONFIG_STRINGS, AT(servers), NULL, .min = 1, .max = 64, .help = "Domain controllers, host or host:port (LDAPS), tried in this order" },
	{ "discover.domain", CONFIG_STRING, AT(discover_domain), NULL, .min = 1, .max = 253, .help = "Instead of servers: DNS domain whose SRV records name them" },
	{ "discover.site", CONFIG_STRING, AT(discover_site), NULL, .min = 1, .max = 63, .help = "Active Directory site whose servers come first; default: none" },
	{ "prefer", CONFIG_CHOICE, AT(prefer), "listed", .choices = "listed|pdc", .help = "Whether the PDC emulator comes before all others" },
	{ "base_dn", CONFIG_STRING, AT(base_dn), NULL, .min = 1, .max = 1024, .help = "Where users are looked for; default: the domain itself" },
	{ "login_attribute", CONFIG_STRING, AT(login_attribute), NULL, .min = 1, .max = 64, .help = "ldap: attribute that users are named by; default: uid" },
	{ "default_policy", CONFIG_STRING, AT(default_policy), NULL, .min = 1, .max = 1024, .help = "ldap: DN of the password policy of those who have none of their own" },
	{ "ca_file", CONFIG_PATH, AT(ca_file), NULL, .help = "CA of the directory servers' certificates; default: the system's store" },
	{ "crl_file", CONFIG_PATH, AT(crl_file), NULL, .help = "Revocation lists; default: none is looked at" },
	{ "bind.mechanism", CONFIG_CHOICE, AT(bind_mechanism), "simple", .choices = "simple|gssapi|gss-spnego|external", .help = "How the agent binds: password, Kerberos keytab, client certificate" },
	{ "bind.dn", CONFIG_STRING, AT(bind_dn), NULL, .min = 1, .max = 1024, .help = "Account of the agent: DN or userPrincipalName (simple; external: where the server does not tell)" },
	{ "bind.password_file", CONFIG_PATH, AT(bind_password_file), NULL, .help = "simple: file with its password, mode 0600 or 0640" },
	{ "bind.principal", CONFIG_STRING, AT(bind_principal), NULL, .min = 3, .max = 255, .help = "gssapi, gss-spnego: account@REALM; default: the keytab's first" },
	{ "bind.keytab", CONFIG_PATH, AT(bind_keytab), NULL, .help = "gssapi, gss-spnego: file with its keys, mode 0600 or 0640" },
	{ "bind.certificate", CONFIG_PATH, AT(bind_certificate), NULL, .help = "external: client certificate (chain) in PEM" },
	{ "bind.key", CONFIG_PATH, AT(bind_key), NULL, .help = "external: its private key in PEM, mode 0600 or 0640" },
	{ "domains", CONFIG_STRINGS, AT(domains), NULL, .max = 256, .help = "UPN suffixes and NetBIOS or DNS names served; default: every one" },
	{ "policy_hints", CONFIG_CHOICE, AT(policy_hints), "require", .choices = "require|when-supported", .help = "Whether a server without the policy-hints control is refused" },
	{ "connections", CONFIG_INT, AT(connections), "2", .min = 1, .max = 16, .help = "Connections to a server, at most" },
	{ "pipeline", CONFIG_INT, AT(pipeline), "64", .min = 1, .max = 1024, .help = "Operations outstanding on one connection" },
	{ "queue", CONFIG_INT, AT(queue), "1024", .min = 1, .max = 65536, .help = "Operations waiting for a connection" },
	{ "timeouts.connect", CONFIG_DURATION_MS, AT(connect_timeout_ms), "5s", .min = 100, .max = MINUTE_MS, .help = "TCP, TLS and bind" },
	{ "timeouts.locate", CONFIG_DURATION_MS, AT(locate_timeout_ms), "3s", .min = 100, .max = MINUTE_MS, .help = "Finding and reading a user" },
	{ "timeouts.write", CONFIG_DURATION_MS, AT(write_timeout_ms), "10s", .min = 100, .max = 2 * MINUTE_MS, .help = "The modify" },
	{ "policy_cache", CONFIG_DURATION_MS, AT(policy_cache_ms), "2min", .max = HOUR_MS, .help = "How long a password policy is remembered" },
	{ "idle_probe", CONFIG_DURATION_MS, AT(idle_probe_ms), "5min", .min = SECOND_MS, .max = 14 * MINUTE_MS, .help = "How often an idle connection is probed" },
	{ "scope.users", CONFIG_CHOICE, AT(scope_users), NULL, .required = true, .reloadable = true, .choices = "none|selected|all", .help = "Whose password may be reset at all", .wanted = "say whose password may be reset: none, selected (with scope.bases or scope.groups) or all" },
	{ "scope.bases", CONFIG_STRINGS, AT(bases), NULL, .reloadable = true, .max = 256, .help = "selected: DNs of subtrees" },
	{ "scope.exclude_bases", CONFIG_STRINGS, AT(exclude_bases), NULL, .reloadable = true, .max = 256, .help = "DNs of subtrees that are out of scope" },
	{ "scope.groups", CONFIG_STRINGS, AT(groups), NULL, .reloadable = true, .max = 64, .help = "selected: groups, as SID or DN, nested membership counts" },
	{ "scope.exclude_groups", CONFIG_STRINGS, AT(exclude_groups), NULL, .reloadable = true, .max = 64, .help = "Groups that are out of scope, as SID or DN" },
	{ "scope.protect", CONFIG_STRINGS, AT(protect), NULL, .reloadable = true, .max = 64, .help = "Groups and accounts that are never reset, as SID or DN, beside the built-in ones" },
	{ "scope.exempt_administrators", CONFIG_STRINGS, AT(exempt_administrators), NULL, .reloadable = true, .max = 64, .help = "Protected groups, as SID or DN, whose members may be reset" },
	{ "scope.allow", CONFIG_STRINGS, AT(allow), NULL, .reloadable = true, .max = 4, .help = "States that do not refuse: disabled, expired, smartcard, cannot_change" },
	{ 0 },
};
#undef AT
#define AT(member) offsetof(struct settings, member)

const struct config_key settings_keys[] = {
	{ "state_directory", CONFIG_PATH, AT(state_directory), "/var/lib/writebackd", .help = "Keys, identity and journal; mode 0700" },
	{ "channel_socket", CONFIG_PATH, AT(channel_socket), "/run/writebackd/channel.sock", .help = "Where writebackd-channel connects" },
	{ "control_socket", CONFIG_PATH, AT(control_socket), "/run/writebackd/control.sock", .help = "Where writebackctl connects" },
	{ "operations", CONFIG_STRINGS, AT(operations), "[reset, change, unlock, check, lookup, policy]", .reloadable = true, .min = 1, .max = 8, .help = "What the service may ask for" },
	{ "allow_unenforced_policy", CONFIG_BOOL, AT(allow_unenforced_policy), "false", .reloadable = true, .help = "Administrators at the service may reset without history and minimum age" },
	{ "limits.in_flight", CONFIG_INT, AT(in_flight), "256", .reloadable = true, .min = 1, .max = 4096, .help = "Requests worked on at once" },
	{ "limits.waiting_per_user", CONFIG_INT, AT(waiting_per_user), "4", .reloadable = true, .max = 64, .help = "Requests for one user that may wait for each other" },
	{ "limits.per_minute", CONFIG_INT, AT(per_minute), "120", .reloadable = true, .max = 100000, .help = "Resets and changes a minute; 0: no limit" },
	{ "limits.per_user_hour", CONFIG_INT, AT(per_user_hour), "3", .reloadable = true, .max = 32, .help = "Resets and changes of one user an hour; 0: no limit" },
	{ "limits.latch_per_hour", CONFIG_INT, AT(latch_per_hour), "300", .reloadable = true, .max = 99999, .help = "More resets and changes within an hour stop all resets, changes and unlocks until 'writebackctl resume'; 0: never" },
	{ "limits.users", CONFIG_INT, AT(users), "0", .reloadable = true, .max = 10000000, .help = "How many users are served: the latch closes above one in a hundred of them, where that is more than latch_per_hour" },
	{ "limits.unlocks_per_minute", CONFIG_INT, AT(unlocks_per_minute), "120", .reloadable = true, .max = 100000, .help = "Unlocks a minute; 0: no limit" },
	{ "limits.wrong_per_user_hour", CONFIG_INT, AT(wrong_per_user_hour), "3", .reloadable = true, .max = 32, .help = "Wrong passwords of one user an hour (change, verify); 0: no limit" },
	{ "limits.wrong_per_minute", CONFIG_INT, AT(wrong_per_minute), "20", .reloadable = true, .max = 100000, .help = "So many wrong passwords of all users within a minute stop change and verify until 'writebackctl resume'; 0: never" },
	{ "limits.lookups_per_minute", CONFIG_INT, AT(lookups_per_minute), "600", .reloadable = true, .max = 100000, .help = "Lookups and questions for the policy a minute; 0: no limit" },
	{ "settling.delay", CONFIG_DURATION_MS, AT(settling_delay_ms), "30s", .reloadable = true, .min = 100, .max = 10 * MINUTE_MS, .help = "How long a record must stay unchanged before a lost write counts as not applied" },
	{ "settling.limit", CONFIG_DURATION_MS, AT(settling_limit_ms), "15min", .reloadable = true, .min = SECOND_MS, .max = HOUR_MS, .help = "When a lost write that cannot be decided becomes unknown" },
	{ "keys.rotate_after", CONFIG_DURATION_MS, AT(rotate_after_ms), "90d", .reloadable = true, .min = HOUR_MS, .max = 3650 * (int64_t)DAY_MS, .help = "Age at which the agent replaces its own keys" },
	{ "keys.wrap_key_file", CONFIG_PATH, AT(wrap_key_file), NULL, .help = "32 bytes that wrap the files of the agent's keys; default: they are plain" },
	{ "log.level", CONFIG_CHOICE, AT(log_level), "info", .reloadable = true, .choices = "debug|info|notice|warning|error|critical", .help = "Lines below it are dropped" },
	{ "log.format", CONFIG_CHOICE, AT(log_format), "auto", .choices = "auto|text|json|journal", .help = "How lines are written" },
	{ "diagnostics.loop_probe", CONFIG_DURATION_MS, AT(loop_probe_ms), "1s", .min = 5, .max = MINUTE_MS, .help = "How often the loop looks at its own punctuality" },
	{ "directories", CONFIG_LIST, AT(directories), NULL, .required = true, .min = 1, .max = 64, .table = directory_keys, .element_size = sizeof(struct settings_directory), .help = "Directories served", .wanted = "list the directories to serve, each with name, servers, bind and scope" },
	{ 0 },
};

size_t settings_directory_count(const struct settings *settings) { return settings->directories.count; }

const struct settings_directory *settings_directory_at(const struct settings *settings, size_t index)
{
	return (const struct settings_directory *)settings->directories.items + index;
}

unsigned settings_operations(const struct settings *settings)
{
	unsigned bits = 0;
	enum operation op;
	for (size_t i = 0; i < settings->operations.count; i++)
		if (operation_from_name(settings->operations.items[i], &op))
			bits |= 1u << op;
	return bits;
}

unsigned settings_allow_bit(const char *word)
{
	static const struct { const char *word; unsigned bit; } words[] = {
		{ "disabled", SCOPE_ALLOW_DISABLED }, { "expired", SCOPE_ALLOW_EXPIRED }, { "smartcard", SCOPE_ALLOW_SMARTCARD }, { "cannot_change", SCOPE_ALLOW_CANNOT_CHANGE },
	};
	for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
		if (strcmp(words[i].word, word) == 0)
			return words[i].bit;
	return 0;
}

unsigned settings_allow(const struct settings_directory *directory)
{
	unsigned bits = 0;
	for (size_t i = 0; i < directory->allow.count; i++)
		bits |= settings_allow_bit(directory->allow.items[i]);
	return bits;
}

int settings_log_level(const struct settings *settings)
{
	static const int levels[] = { LOG_DEBUG, LOG_INFO, LOG_NOTICE, LOG_WARNING, LOG_ERR, LOG_CRIT };
	return levels[settings->log_level];
}

/* More than 1 % of the users within an hour is no Monday morning. */
static unsigned latch_per_hour(const struct settings *settings)
{
	int64_t share = settings->users / 100;
	return settings->latch_per_hour && share > settings->latch_per_hour ? share : settings->latch_per_hour;
}

void settings_limits(const struct settings *settings, struct limits_settings *ret_limits)
{
	*ret_limits = (struct limits_settings){
		.in_flight = settings->in_flight,         .waiting_per_user = settings->waiting_per_user, .per_minute = settings->per_minute,
		.per_user_hour = settings->per_user_hour, .latch_per_hour = latch_per_hour(settings),     .unlocks_per_minute = settings->unlocks_per_minute,
		.wrong_per_user_hour = settings->wrong_per_user_hour, .wrong_per_minute = settings->wrong_per_minute, .lookups_per_minute = settings->lookups_per_minute,
	};
}

/* Reading ----------------------------------------------------------------------------------------------------------------------------- */

enum status settings_load(const char *file, const struct file_reader *reader, struct settings *ret_settings, struct config_errors *errors, struct config_document **ret_document)
{
	struct config_document *document = NULL;
	memset(ret_settings, 0, sizeof *ret_settings);
	enum status status = config_load(file, settings_keys, ret_settings, errors, &document);
	bool read = status == STATUS_OK;
	if (read)
		settings_judge(ret_settings, reader, errors, document);
	if (read && errors->count > 0)
		status = STATUS_LOCAL_CONFIG;
	/* What was read and is refused can still be shown. */
	if (ret_document)
		*ret_document = read ? document : NULL;
	if (!ret_document || !read)
		config_document_free(document);
	if (status != STATUS_OK && (!ret_document || !read))
		settings_clear(ret_settings);
	return status;
}

enum status settings_parse(const char *name, const char *text, struct settings *ret_settings, struct config_errors *errors)
{
	struct config_document *document = NULL;
	memset(ret_settings, 0, sizeof *ret_settings);
	enum status status = config_parse(name, text, strlen(text), settings_keys, ret_settings, errors, &document);
	if (status == STATUS_OK)
		settings_judge(ret_settings, NULL, errors, document);
	if (status == STATUS_OK && errors->count > 0)
		status = STATUS_LOCAL_CONFIG;
	if (status != STATUS_OK)
		settings_clear(ret_settings);
	config_document_free(document);
	return status;
}

void settings_clear(struct settings *settings)
{
	config_clear(settings_keys, settings);
}
