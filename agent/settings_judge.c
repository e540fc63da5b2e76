#include "agent/settings_judge.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "agent/account.h"
#include "agent/directory/directory.h"
#include "agent/gate/scope.h"
#include "proto/messages.h"

#define SOCKET_PATH_MAX (sizeof ((struct sockaddr_un *)NULL)->sun_path - 1)
#define NAME_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"

void find_fault(const struct judgement *judgement, const char *member, const char *format, ...)
{
	char path[128], text[1024];
	va_list arguments;
	va_start(arguments, format);
	vsnprintf(text, sizeof text, format, arguments);
	va_end(arguments);
	snprintf(path, sizeof path, "directories[%zu].%s", judgement->index, member);
	config_error_add(judgement->errors, judgement->document, path, "%s: %s", path, text);
}

/* Lists ------------------------------------------------------------------------------------------------------------------------------- */

static bool equal_plainly(const char *a, const char *b) { return strcasecmp(a, b) == 0; }
static bool equal_names(const char *a, const char *b) { return strcasecmp(a, b) == 0 || (dn_is_below(a, b) && dn_is_below(b, a)); }

/* The index of an earlier item that is the same; `i` where there is none. */
static size_t find_earlier(const struct config_strings *list, size_t i, bool (*equal)(const char *a, const char *b))
{
	for (size_t j = 0; j < i; j++)
		if (equal(list->items[i], list->items[j]))
			return j;
	return i;
}

static void judge_repetition(const struct judgement *judgement, const char *member, const struct config_strings *list, bool (*equal)(const char *a, const char *b))
{
	for (size_t i = 0; i < list->count; i++)
		if (find_earlier(list, i, equal) < i)
			find_fault(judgement, member, "\"%s\" stands there twice: remove one", list->items[i]);
}

static void judge_names(const struct judgement *judgement, const char *member, const struct config_strings *names)
{
	struct sid sid;
	for (size_t i = 0; i < names->count; i++)
		if (strncasecmp(names->items[i], "S-1-", 4) == 0 ? sid_parse(names->items[i], &sid) != STATUS_OK : !dn_valid(names->items[i]))
			find_fault(judgement, member, "\"%s\" is neither a SID (S-1-5-21-…) nor a DN", names->items[i]);
	judge_repetition(judgement, member, names, equal_names);
}

static void judge_dns(const struct judgement *judgement, const char *member, const struct config_strings *names)
{
	for (size_t i = 0; i < names->count; i++)
		if (!dn_valid(names->items[i]))
			find_fault(judgement, member, "\"%s\" is not a DN", names->items[i]);
	judge_repetition(judgement, member, names, equal_names);
}

/* Servers ----------------------------------------------------------------------------------------------------------------------------- */

static const char *port_fault(const char *port)
{
	char *end;
	unsigned long number = strtoul(port, &end, 10);
	return *port < '0' || *port > '9' || *end || number == 0 || number > UINT16_MAX ? "the port should be a number between 1 and 65535" : NULL;
}

/* host, host:port, [address]:port or an IPv6 address; NULL where it is one. */
static const char *server_fault(const char *server)
{
	struct in6_addr address;
	if (strstr(server, "://"))
		return "leave the scheme away: LDAPS is always spoken; write host or host:port";
	if (strpbrk(server, ", \t;"))
		return "holds a comma or a blank: write each server as an item of its own";
	if (strpbrk(server, "/@?#\\\"'"))
		return "is not a host name: write host or host:port";
	if (inet_pton(AF_INET6, server, &address) == 1)
		return NULL;
	if (*server == '[') {
		const char *end = strchr(server, ']');
		if (!end || (end[1] && end[1] != ':'))
			return "an IPv6 address with a port is written [address]:port";
		return end[1] ? port_fault(end + 2) : NULL;
	}
	const char *colon = strchr(server, ':');
	if (colon == server)
		return "names no host";
	if (colon && strchr(colon + 1, ':'))
		return "holds more than one colon: an IPv6 address with a port is written [address]:port";
	return colon ? port_fault(colon + 1) : NULL;
}

static bool equal_servers(const char *a, const char *b)
{
	size_t a_size = strlen(a), b_size = strlen(b);
	a_size -= a_size > 4 && strcmp(a + a_size - 4, ":636") == 0 ? 4 : 0;
	b_size -= b_size > 4 && strcmp(b + b_size - 4, ":636") == 0 ? 4 : 0;
	return a_size == b_size && strncasecmp(a, b, a_size) == 0;
}

static bool is_domain_name(const char *name)
{
	size_t size = strlen(name);
	bool labels = name[0] != '.' && name[size - 1] != '.' && !strstr(name, "..");
	for (const char *label = name; labels && *label; label += strcspn(label, ".") + (strchr(label, '.') != NULL))
		labels = strcspn(label, ".") <= 63;
	return labels && !name[strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.")];
}

static void judge_discovery(const struct judgement *judgement, const struct settings_directory *directory)
{
	if (directory->servers.count > 0 && directory->discover_domain)
		find_fault(judgement, "discover.domain", "servers are listed too: keep either servers or discover");
	if (directory->servers.count == 0 && !directory->discover_domain)
		find_fault(judgement, "servers", "list the directory's servers, host or host:port; or let DNS name them: discover: {domain: corp.example.com}");
	if (directory->discover_domain && !is_domain_name(directory->discover_domain))
		find_fault(judgement, "discover.domain", "\"%s\" is not the name of a DNS domain (corp.example.com)", directory->discover_domain);
	if (directory->discover_site && !directory->discover_domain)
		find_fault(judgement, "discover.site", "means something only with discover.domain: name the domain too");
	if (directory->discover_site && (!is_domain_name(directory->discover_site) || strchr(directory->discover_site, '.')))
		find_fault(judgement, "discover.site", "\"%s\" is not the name of a site (Berlin)", directory->discover_site);
	if (directory->flavor == DIRECTORY_LDAP && directory->discover_site)
		find_fault(judgement, "discover.site", "only Active Directory has sites: remove it");
	if (directory->flavor == DIRECTORY_LDAP && directory->prefer == PREFER_PDC)
		find_fault(judgement, "prefer", "only Active Directory has a PDC emulator: use \"listed\"");
}

static void judge_servers(const struct judgement *judgement, const struct config_strings *servers)
{
	for (size_t i = 0; i < servers->count; i++) {
		const char *fault = server_fault(servers->items[i]);
		if (fault)
			find_fault(judgement, "servers", "\"%s\": %s", servers->items[i], fault);
	}
	judge_repetition(judgement, "servers", servers, equal_servers);
}

/* Files ------------------------------------------------------------------------------------------------------------------------------- */

/* Whether a PEM file holds what it should: at least one certificate, or one CRL. */
static const char *pem_fault(const char *path, bool crl)
{
	BIO *bio = BIO_new_file(path, "r");
	STACK_OF(X509_INFO) *items = bio ? PEM_X509_INFO_read_bio(bio, NULL, NULL, NULL) : NULL;
	bool found = false;
	for (int i = 0; i < sk_X509_INFO_num(items); i++) {
		const X509_INFO *item = sk_X509_INFO_value(items, i);
		found |= crl ? item->crl != NULL : item->x509 != NULL;
	}
	sk_X509_INFO_pop_free(items, X509_INFO_free);
	BIO_free(bio);
	ERR_clear_error();
	return found ? NULL : crl ? "holds no CRL in PEM (-----BEGIN X509 CRL-----)" : "holds no certificate in PEM (-----BEGIN CERTIFICATE-----)";
}

static void judge_pem(const struct judgement *judgement, const char *member, const char *path, bool crl)
{
	char why[600];
	if (!path)
		return;
	if (file_plain_fault(path, why, sizeof why) || file_reader_fault(path, judgement->reader, why, sizeof why)) {
		find_fault(judgement, member, "%s", why);
		return;
	}
	const char *fault = pem_fault(path, crl);
	if (fault)
		find_fault(judgement, member, "%s %s", path, fault);
}

static void judge_wrap_key(const struct judgement *judgement, const char *path)
{
	char why[600];
	struct stat facts;
	if (!path)
		return;
	if (file_private_fault(path, why, sizeof why) || file_reader_fault(path, judgement->reader, why, sizeof why))
		config_error_add(judgement->errors, judgement->document, "keys.wrap_key_file", "keys.wrap_key_file: %s", why);
	else if (stat(path, &facts) == 0 && facts.st_size != JOSE_WRAP_KEY)
		config_error_add(judgement->errors, judgement->document, "keys.wrap_key_file", "keys.wrap_key_file: %s must hold exactly %d bytes, it has %lld: head -c %d /dev/urandom", path, JOSE_WRAP_KEY,
		                 (long long)facts.st_size, JOSE_WRAP_KEY);
}

static void judge_socket(const struct judgement *judgement, const char *path, const char *socket)
{
	if (strlen(socket) > SOCKET_PATH_MAX)
		config_error_add(judgement->errors, judgement->document, path, "%s: the path of a socket has at most %zu bytes; this one has %zu", path, SOCKET_PATH_MAX, strlen(socket));
}

static void judge_state_directory(const struct judgement *judgement, const char *folder)
{
	struct stat facts;
	uid_t owner = judgement->reader ? judgement->reader->uid : geteuid();
	const char *fault = NULL;
	if (stat(folder, &facts) != 0)
		fault = errno == ENOENT ? NULL : errno == ENOTDIR ? "is below a file" : "cannot be looked at: let the agent's user enter its folders";
	else if (!S_ISDIR(facts.st_mode))
		fault = "is not a folder";
	else if (facts.st_uid != owner)
		fault = "does not belong to the agent's user: chown it";
	else if (facts.st_mode & 077)
		fault = "is open to others: it should have mode 0700";
	if (fault)
		config_error_add(judgement->errors, judgement->document, "state_directory", "state_directory: %s %s", folder, fault);
}

/* All of it --------------------------------------------------------------------------------------------------------------------------- */

static void judge_scope_users(const struct judgement *judgement, const struct settings_directory *directory)
{
	bool narrowed = directory->bases.count + directory->groups.count > 0;
	if (directory->scope_users == SCOPE_SELECTED && !narrowed)
		find_fault(judgement, "scope.users", "\"selected\" needs scope.bases or scope.groups: name at least one");
	if (directory->scope_users != SCOPE_SELECTED && narrowed)
		find_fault(judgement, "scope.users", "scope.bases and scope.groups mean something only with \"selected\": use it, or remove them");
}

/* A SID says by itself whether it is one of a protected group; a DN is looked up. */
static void judge_exemptions(const struct judgement *judgement, const struct settings_directory *directory)
{
	const struct config_strings *names = &directory->exempt_administrators;
	struct sid sid;
	for (size_t i = 0; i < names->count; i++) {
		if (strncasecmp(names->items[i], "S-1-", 4) == 0 && sid_parse(names->items[i], &sid) == STATUS_OK && !scope_is_exemptible(&sid))
			find_fault(judgement, "scope.exempt_administrators", "\"%s\" is not the SID of a protected group that may be exempted: name the group whose members may be reset, such as S-1-5-32-550", names->items[i]);
		for (size_t k = 0; k < directory->protect.count; k++)
			if (equal_names(names->items[i], directory->protect.items[k]))
				find_fault(judgement, "scope.exempt_administrators", "\"%s\" stands in scope.protect too, which wins: remove one", names->items[i]);
	}
}

static void judge_allow(const struct judgement *judgement, const struct config_strings *words)
{
	for (size_t i = 0; i < words->count; i++)
		if (!settings_allow_bit(words->items[i]))
			find_fault(judgement, "scope.allow", "\"%s\" is no state: disabled, expired, smartcard or cannot_change", words->items[i]);
	judge_repetition(judgement, "scope.allow", words, equal_plainly);
}

#define ATTRIBUTE_CHARACTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-"

static void judge_active_directory(const struct judgement *judgement, const struct settings_directory *directory)
{
	static const char ONLY[] = "means something only with flavor: ldap";
	if (directory->login_attribute)
		find_fault(judgement, "login_attribute", "%s: remove it", ONLY);
	if (directory->default_policy)
		find_fault(judgement, "default_policy", "%s: remove it", ONLY);
}

/* No group there is protected by itself, and no SID names anybody. */
static void judge_ldap(const struct judgement *judgement, const struct settings_directory *directory)
{
	const struct { const char *member; const struct config_strings *names; } lists[] = {
		{ "scope.groups", &directory->groups }, { "scope.exclude_groups", &directory->exclude_groups }, { "scope.protect", &directory->protect } };
	if (!directory->base_dn)
		find_fault(judgement, "base_dn", "is missing, and flavor ldap needs it: name the subtree that users are looked for in");
	if (directory->login_attribute && directory->login_attribute[strspn(directory->login_attribute, ATTRIBUTE_CHARACTERS)])
		find_fault(judgement, "login_attribute", "\"%s\" is not an attribute's name", directory->login_attribute);
	if (directory->default_policy && !dn_valid(directory->default_policy))
		find_fault(judgement, "default_policy", "\"%s\" is not a DN", directory->default_policy);
	if (directory->bind_dn && !dn_valid(directory->bind_dn))
		find_fault(judgement, "bind.dn", "\"%s\" is not a DN, and flavor ldap has no other names", directory->bind_dn);
	for (size_t l = 0; l < sizeof lists / sizeof lists[0]; l++)
		for (size_t i = 0; i < lists[l].names->count; i++)
			if (strncasecmp(lists[l].names->items[i], "S-1-", 4) == 0)
				find_fault(judgement, lists[l].member, "\"%s\": there are no SIDs in flavor ldap: write DNs", lists[l].names->items[i]);
	if (directory->exempt_administrators.count > 0)
		find_fault(judgement, "scope.exempt_administrators", "means nothing with flavor ldap, which has no built-in groups: remove it");
	if (directory->scope_users == SCOPE_ALL && directory->protect.count == 0)
		find_fault(judgement, "scope.protect", "is missing: flavor ldap knows no administrators by itself, so with users: all name their groups or entries here");
}

static void judge_directory(const struct settings *settings, const struct judgement *judgement)
{
	const struct settings_directory *directory = settings_directory_at(settings, judgement->index);
	if (directory->name[strspn(directory->name, NAME_CHARACTERS)])
		find_fault(judgement, "name", "\"%s\": a name has letters, digits, dots, hyphens and underscores", directory->name);
	for (size_t i = 0; i < judgement->index; i++)
		if (strcasecmp(settings_directory_at(settings, i)->name, directory->name) == 0)
			find_fault(judgement, "name", "\"%s\" is the name of two directories: names must be unique", directory->name);
	judge_servers(judgement, &directory->servers);
	judge_discovery(judgement, directory);
	if (directory->base_dn && !dn_valid(directory->base_dn))
		find_fault(judgement, "base_dn", "\"%s\" is not a DN", directory->base_dn);
	judge_pem(judgement, "ca_file", directory->ca_file, false);
	judge_pem(judgement, "crl_file", directory->crl_file, true);
	judge_bind(judgement, directory);
	judge_repetition(judgement, "domains", &directory->domains, equal_plainly);
	judge_dns(judgement, "scope.bases", &directory->bases);
	judge_dns(judgement, "scope.exclude_bases", &directory->exclude_bases);
	judge_names(judgement, "scope.groups", &directory->groups);
	judge_names(judgement, "scope.exclude_groups", &directory->exclude_groups);
	judge_names(judgement, "scope.protect", &directory->protect);
	judge_names(judgement, "scope.exempt_administrators", &directory->exempt_administrators);
	judge_exemptions(judgement, directory);
	judge_allow(judgement, &directory->allow);
	judge_scope_users(judgement, directory);
	(directory->flavor == DIRECTORY_LDAP ? judge_ldap : judge_active_directory)(judgement, directory);
}

static void judge_operations(const struct judgement *judgement, const struct config_strings *operations)
{
	enum operation op;
	for (size_t i = 0; i < operations->count; i++) {
		if (!operation_from_name(operations->items[i], &op) )
			config_error_add(judgement->errors, judgement->document, "operations", "operations: \"%s\" is not an operation: reset, change, unlock, check, lookup, policy or verify", operations->items[i]);
		if (find_earlier(operations, i, equal_plainly) < i)
			config_error_add(judgement->errors, judgement->document, "operations", "operations: \"%s\" stands there twice: remove one", operations->items[i]);
	}
}

void settings_judge(const struct settings *settings, const struct file_reader *reader, struct config_errors *errors, const struct config_document *document)
{
	struct judgement judgement = { reader, errors, document, 0 };
	judge_operations(&judgement, &settings->operations);
	judge_state_directory(&judgement, settings->state_directory);
	judge_wrap_key(&judgement, settings->wrap_key_file);
	judge_socket(&judgement, "channel_socket", settings->channel_socket);
	judge_socket(&judgement, "control_socket", settings->control_socket);
	if (strcmp(settings->channel_socket, settings->control_socket) == 0)
		config_error_add(errors, document, "control_socket", "control_socket: must be another path than channel_socket");
	if (settings->settling_limit_ms <= settings->settling_delay_ms)
		config_error_add(errors, document, "settling.limit", "settling.limit: must be longer than settling.delay");
	for (judgement.index = 0; judgement.index < settings_directory_count(settings); judgement.index++)
		judge_directory(settings, &judgement);
}
