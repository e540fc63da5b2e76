/* The rights of the agent's account on one user: a row each, what a missing one means, and the commands that grant it. docs/active-directory.md has the same commands. */
#include <stdio.h>
#include <string.h>

#include "agent/check_user.h"

#define USER_CLASS "bf967aba-0de6-11d0-a285-00aa003049e2"
#define ON_USERS(ace) "samba-tool dsacl set --objectdn=\"{ou}\" --sddl=\"(OA;CIIO;" ace ";" USER_CLASS ";{sid})\""

static const struct right_row {
	const char *question, *without;
	const char *windows, *samba;
} RIGHTS[RIGHT_COUNT] = {
	[RIGHT_RESET_PASSWORD] = { "Reset Password", "no password can be set for this user", "dsacls \"{ou}\" /I:S /G \"{who}:CA;Reset Password;user\"",
		ON_USERS("CR;00299570-246d-11d0-a768-00aa006e0529") },
	[RIGHT_CHANGE_PASSWORD] = { "Change Password", "this user's password cannot be changed with the old one", "dsacls \"{ou}\" /I:S /G \"{who}:CA;Change Password;user\"",
		ON_USERS("CR;ab721a53-1e2f-11d0-9819-00aa0040529b") },
	[RIGHT_WRITE_LOCKOUT_TIME] = { "write lockoutTime", "this user cannot be unlocked, neither alone nor with a reset", "dsacls \"{ou}\" /I:S /G \"{who}:RPWP;lockoutTime;user\"",
		ON_USERS("RPWP;28630ebf-41d5-11d1-a9c1-0000f80367c1") },
	[RIGHT_WRITE_PWD_LAST_SET] = { "write pwdLastSet", "a reset of this user with must_change fails", "dsacls \"{ou}\" /I:S /G \"{who}:RPWP;pwdLastSet;user\"",
		ON_USERS("RPWP;bf967a0a-0de6-11d0-a285-00aa003049e2") },
	[RIGHT_UNEXPIRE_PASSWORD] = { "Unexpire Password", "on the domain; Windows marks a password that was reset as expired, and the user must change it at the next logon", "dsacls \"{domain}\" /G \"{who}:CA;Unexpire Password\"",
		"samba-tool dsacl set --objectdn=\"{domain}\" --sddl=\"(OA;;CR;ccc2dc7d-a6ad-4a7a-8846-c04e3cc53501;;{sid})\"" },
	[RIGHT_READ_USER] = { "read the user", "what may not be read looks as if it were not there", "dsacls \"{ou}\" /I:S /G \"{who}:LCRP;;user\"",
		"samba-tool dsacl set --objectdn=\"{ou}\" --sddl=\"(OA;CIIO;RPLC;;" USER_CLASS ";{sid})\"" },
	[RIGHT_READ_POLICIES] = { "read Password Settings", "fine-grained password policies cannot be read", "dsacls \"CN=Password Settings Container,CN=System,{domain}\" /I:T /G \"{who}:LCRPRC\"",
		"samba-tool dsacl set --objectdn=\"CN=Password Settings Container,CN=System,{domain}\" --sddl=\"(A;CI;LCRPRC;;;{sid})\"" },
};
static const enum directory_right ORDER[] = { RIGHT_READ_USER, RIGHT_RESET_PASSWORD, RIGHT_WRITE_LOCKOUT_TIME, RIGHT_WRITE_PWD_LAST_SET, RIGHT_UNEXPIRE_PASSWORD, RIGHT_READ_POLICIES,
	RIGHT_CHANGE_PASSWORD };

/* The place to grant it: what the configuration selects, else the user's own container. */
static const char *find_container(const struct user_check *check)
{
	const char *dn = located_account(check->located)->dn;
	const struct scope *scope = realm_scope(check->realm);
	for (size_t i = 0; scope->bases && scope->bases[i]; i++)
		if (dn_is_below(dn, scope->bases[i]))
			return scope->bases[i];
	for (; *dn && *dn != ','; dn++)
		dn += *dn == '\\' && dn[1] ? 1 : 0;
	return *dn ? dn + 1 : dn;
}

static void find_domain(const char *dn, char *domain, size_t capacity)
{
	const char *head = strncasecmp(dn, "DC=", 3) == 0 ? dn : strcasestr(dn, ",DC=");
	snprintf(domain, capacity, "%s", head && *head == ',' ? head + 1 : head ? head : "");
}

/* What a shell would take for more than a name is not put into a line that somebody copies. */
static bool is_plain(const char *text)
{
	return *text && !strpbrk(text, "\"\\`$!%\r\n");
}

static json_t *expand(const char *template, const char *const values[4])
{
	static const char *const names[] = { "{ou}", "{who}", "{sid}", "{domain}" };
	char line[2048];
	size_t used = 0;
	while (*template && used < sizeof line - 1) {
		size_t i = 0;
		while (i < 4 && strncmp(template, names[i], strlen(names[i])) != 0)
			i++;
		if (i == 4) {
			line[used++] = *template++;
			continue;
		}
		if (!is_plain(values[i]) && i != 1)
			return NULL;
		used += snprintf(line + used, sizeof line - used, "%s", values[i]);
		template += strlen(names[i]);
	}
	if (used >= sizeof line - 1)
		return NULL;
	line[used] = 0;
	return json_string(line);
}

static json_t *grants(const struct user_check *check, const struct right_row *row)
{
	struct sid agent = located_agent(check->located);
	char sid[SID_TEXT_MAX], domain[512];
	const struct settings_directory *settings = realm_settings(check->realm);
	const char *name = settings->bind_principal ? settings->bind_principal : settings->bind_dn;
	sid_format(&agent, sid);
	find_domain(located_account(check->located)->dn, domain, sizeof domain);
	const char *const values[4] = { find_container(check), name && !strchr(name, '=') && is_plain(name) ? name : "DOMAIN\\ACCOUNT", *sid ? sid : "SID", domain };
	json_t *json = json_object(), *windows = expand(row->windows, values), *samba = expand(row->samba, values);
	if (windows)
		json_object_set_new(json, "windows", windows);
	if (samba)
		json_object_set_new(json, "samba", samba);
	return json;
}

/* Without it something that the configuration allows would fail for this user, or be judged without knowing enough. */
static bool is_needed(const struct user_check *check, enum directory_right right)
{
	unsigned operations = settings_operations(check->agent->settings);
	switch (right) {
	case RIGHT_RESET_PASSWORD:
	case RIGHT_WRITE_PWD_LAST_SET:
	case RIGHT_UNEXPIRE_PASSWORD:
		return operations & 1u << OP_RESET;
	case RIGHT_CHANGE_PASSWORD:
		return operations & 1u << OP_CHANGE;
	case RIGHT_WRITE_LOCKOUT_TIME:
		return operations & (1u << OP_RESET | 1u << OP_UNLOCK);
	case RIGHT_READ_POLICIES:
		return located_account(check->located)->policy.source == POLICY_UNKNOWN;
	default:
		return true;
	}
}

static void describe(const struct user_check *check, enum directory_right right, char *text, size_t capacity)
{
	const struct directory_rights *rights = check->rights;
	enum right_answer answer = rights->answers[right];
	bool own = right == RIGHT_READ_POLICIES && located_account(check->located)->policy.source != POLICY_DOMAIN;
	if (answer == RIGHT_UNKNOWN)
		snprintf(text, capacity, "not known: the descriptor that says so could not be read");
	else if (answer == RIGHT_YES)
		snprintf(text, capacity, "yes%s", own ? ": this user's own policy was read" : "");
	else if (right == RIGHT_READ_USER)
		snprintf(text, capacity, "no: not %s; %s", rights->unreadable, RIGHTS[right].without);
	else if (right == RIGHT_READ_POLICIES && !is_needed(check, right))
		snprintf(text, capacity, "no, and none applies to this user: %s", RIGHTS[right].without);
	else
		snprintf(text, capacity, "no: %s", RIGHTS[right].without);
	size_t used = strlen(text);
	if (rights->contradicted[right])
		snprintf(text + used, capacity - used, " (the server says so by allowedAttributesEffective; its access list says otherwise)");
}

/* A line that grants a right on such a user would be bad advice. */
static bool is_nobodys_business(const struct user_check *check)
{
	return check->status == STATUS_USER_PROTECTED || check->status == STATUS_USER_OUT_OF_SCOPE;
}

static void add_right(struct user_check *check, enum directory_right right)
{
	static const char *const answers[] = { [RIGHT_UNKNOWN] = "unknown", [RIGHT_NO] = "no", [RIGHT_YES] = "yes" };
	const struct account *account = located_account(check->located);
	char text[1024], question[64];
	bool missing = check->rights->answers[right] == RIGHT_NO, needed = is_needed(check, right);
	snprintf(question, sizeof question, "right: %s", RIGHTS[right].question);
	describe(check, right, text, sizeof text);
	bool stops = right != RIGHT_READ_USER && right != RIGHT_READ_POLICIES && right != RIGHT_UNEXPIRE_PASSWORD, first = check->status == STATUS_OK;
	json_t *row = check_add_row(check, question, missing && needed && stops ? STATUS_DIRECTORY_DENIED : STATUS_OK, text);
	if (first && check->status != STATUS_OK)
		snprintf(check->text, sizeof check->text, "the agent's account lacks the right: %s", RIGHTS[right].question);
	json_object_set_new(row, "ok", json_boolean(!(missing && needed)));
	check->incomplete |= missing && needed;
	json_object_set_new(row, "answer", json_string(answers[check->rights->answers[right]]));
	json_object_set_new(row, "needed", json_boolean(needed));
	if (missing && account->admin_count && right != RIGHT_UNEXPIRE_PASSWORD && right != RIGHT_READ_POLICIES)
		json_object_set_new(row, "note", json_string("adminCount is set: AdminSDHolder's access list is on this user, and takes no rights from the container"));
	else if (missing && right != RIGHT_UNEXPIRE_PASSWORD && right != RIGHT_READ_POLICIES && is_nobodys_business(check))
		json_object_set_new(row, "note", json_string("nothing to grant: this user is not to be reset"));
	else if (missing || (right == RIGHT_READ_POLICIES && check->rights->answers[right] == RIGHT_UNKNOWN))
		json_object_set_new(row, "grant", grants(check, &RIGHTS[right]));
}

void check_add_rights(struct user_check *check)
{
	if (!check->rights) {
		check_add_row(check, "rights", STATUS_OK, "not known: they could not be read");
		return;
	}
	if (located_account(check->located)->is_entry) {
		check_add_row(check, "rights", STATUS_OK, "not known: this kind of directory does not tell them; a refusal names what is missing");
		return;
	}
	for (size_t i = 0; i < sizeof ORDER / sizeof ORDER[0]; i++)
		add_right(check, ORDER[i]);
}
