#include "agent/directory/flavor.h"

#include <stdlib.h>

void ldap_search_clear(struct ldap_search *search)
{
	free(search->base);
	free(search->filter);
	*search = (struct ldap_search){ 0 };
}

void root_facts_clear(struct root_facts *facts)
{
	free(facts->naming_context);
	free(facts->host_name);
	free(facts->service_name);
	free(facts->configuration);
	*facts = (struct root_facts){ 0 };
}

void token_clear(struct token *token)
{
	free(token->sids);
	*token = (struct token){ 0 };
}

void user_facts_clear(struct user_facts *facts)
{
	account_clear(&facts->account);
	free(facts->policy_dn);
	free(facts->group_filter);
	*facts = (struct user_facts){ 0 };
}

void change_free(struct change *change)
{
	if (change != NULL) {
		secret_wipe(&change->password);
		secret_wipe(&change->old_password);
		secret_wipe(&change->request);
		free(change);
	}
}

enum status change_still_wanted(const struct change *change)
{
	return change != NULL && change->still_wanted != NULL ? change->still_wanted(change->arg) : STATUS_OK;
}

LDAPMod **change_mods(struct change *change)
{
	return change->mods;
}

LDAPControl **change_controls(struct change *change)
{
	return change->controls[0] != NULL ? change->controls : NULL;
}

void change_add(struct change *change, int mod_op, const char *type, struct berval value)
{
	size_t i = change->count++;
	change->values[i] = value;
	change->lists[i][0] = value.bv_val != NULL ? &change->values[i] : NULL;
	change->items[i] = (LDAPMod){ .mod_op = mod_op | LDAP_MOD_BVALUES, .mod_type = (char *)type, .mod_vals.modv_bvals = change->lists[i][0] != NULL ? change->lists[i] : NULL };
	change->mods[i] = &change->items[i];
}
