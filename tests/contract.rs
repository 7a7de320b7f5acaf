//! What the store must hold, on both databases: every test of `contract/` runs once on PostgreSQL and once on SQLite.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    missing_docs
)]

#[path = "support"]
#[allow(dead_code, unreachable_pub)]
mod support {
    pub mod ports;
    pub mod postgres;
    pub mod process;
}

#[path = "contract"]
mod contract {
    pub mod append;
    pub mod bundles;
    pub mod census;
    pub mod claim_limits;
    pub mod claims;
    pub mod consumption;
    pub mod cursors;
    pub mod database;
    pub mod dead_letters;
    pub mod device_lists;
    pub mod devices;
    pub mod directory_model;
    pub mod epochs;
    pub mod erase;
    pub mod expiry;
    pub mod history;
    pub mod identities;
    pub mod lifecycle;
    pub mod lifecycle_model;
    pub mod long_jids;
    pub mod notices;
    pub mod paging;
    pub mod paging_model;
    mod plans;
    pub mod preferences;
    pub mod retention;
    pub mod retire;
    pub mod retraction;
    pub mod schema;
    pub mod sessions;
    pub mod upgrade;
    pub mod words;
}

/// Makes each test function, which takes a fresh database, a test on either one.
macro_rules! on_both_databases {
    ($($module:ident { $($test:ident),* $(,)? })*) => {
        mod postgres {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::contract::$module::$test(crate::contract::database::Database::postgres().await).await;
                })*
            })*
        }
        mod sqlite {
            $(mod $module {
                $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    crate::contract::$module::$test(crate::contract::database::Database::sqlite().await).await;
                })*
            })*
        }
    };
}

on_both_databases! {
    retire {
        an_archive_keeps_so_many_of_a_class_and_the_oldest_go,
        a_retired_copy_takes_nothing_from_the_other_archive,
        what_every_listed_device_has_read_goes_if_the_operator_wants_it,
        a_retired_copy_stays_in_its_place,
    }
    schema {
        an_unmigrated_database_is_refused,
        a_newer_schema_is_refused,
        migrating_twice_and_by_two_at_once_is_safe,
        the_archive_id_secret_is_made_once,
        what_the_store_does_shows_in_its_metrics,
    }
    census {
        every_device_with_a_bundle_is_counted_once_with_its_stock,
        what_devices_have_not_read_is_counted,
        what_waits_is_counted_with_the_age_of_the_oldest,
    }
    upgrade {
        a_database_of_every_earlier_schema_keeps_what_it_has,
        a_migration_that_is_missing_or_another_one_is_named,
        a_program_serves_on_while_a_newer_schema_adds_to_every_table,
    }
    device_lists {
        a_list_is_what_was_published,
        a_device_that_the_session_never_saw_stays,
        a_device_that_the_session_saw_is_removed,
        publishing_does_not_count_as_seeing_what_was_kept,
        only_the_owner_s_sessions_see,
        a_list_that_would_grow_too_long_is_not_stored,
        a_deleted_list_is_gone_and_unseen,
        concurrent_publishes_lose_no_device,
        what_is_read_while_it_is_deleted_is_not_seen_of_the_next_list,
        sessions_beyond_the_bound_are_forgotten,
    }
    devices {
        one_device_is_added_relabelled_and_removed,
        a_list_takes_no_device_beyond_the_limit,
        adding_is_seeing_that_device_and_no_other,
        ten_devices_add_themselves_while_two_are_removed,
        a_device_is_told_what_became_of_its_prekeys,
        bundles_and_sessions_are_found_by_device,
    }
    bundles {
        the_owner_gets_back_exactly_what_it_published,
        publishing_counts_what_it_did,
        a_changed_identity_is_told_and_withdraws_the_older_prekeys,
        a_retracted_bundle_is_gone,
        protocols_devices_and_owners_are_apart,
    }
    claims {
        each_prekey_goes_to_one_requester_oldest_first,
        a_requester_gets_the_same_prekey_until_the_window_passes,
        a_repeat_ends_when_the_prekey_is_withdrawn,
        a_repeat_ends_when_the_prekey_is_consumed,
        a_repeat_ends_when_the_identity_changes,
        an_issued_prekey_is_never_unissued_again,
        a_new_key_under_an_old_id_is_a_new_prekey,
        a_withdrawn_prekey_is_never_handed_out,
        the_last_resort_is_the_least_recently_issued,
        a_last_resort_takes_nothing_from_what_one_has,
        a_strict_claim_gets_no_last_resort,
        a_consumed_prekey_is_never_given_again,
        there_is_nothing_to_claim_without_a_bundle,
        the_totals_show_a_prekey_handed_out_twice,
        concurrent_requests_of_one_requester_get_one_prekey,
        concurrent_requesters_empty_the_stock_exactly,
        claims_and_publishes_at_once_stay_consistent,
        forgotten_claims_leave_the_tombstones,
    }
    claim_limits {
        an_account_gets_so_many_prekeys_of_a_device_a_day,
        an_account_gets_so_many_prekeys_a_day,
        the_accounts_of_a_foreign_domain_get_so_many_a_day,
        the_owner_s_own_devices_are_under_no_limit,
        strangers_get_the_reserve_slowly,
        a_thousand_accounts_drain_a_pool_no_faster_than_the_limits_allow,
        limits_hold_over_instances,
        an_allowance_is_kept_to_a_thousandth_over_instances_and_restarts,
        a_device_is_told_once_that_its_stock_is_low_and_once_that_it_is_empty,
        a_device_with_a_smaller_bundle_is_told_in_time,
        a_batch_is_answered_claim_by_claim,
    }
    consumption {
        a_key_exchange_uses_up_the_prekey_of_its_sender,
        nobody_uses_up_the_prekeys_of_others,
        of_prekeys_with_one_id_the_one_that_was_issued_to_the_sender_is_used_up,
        who_was_given_a_last_resort_can_use_it_up,
        a_device_is_one_claimant_from_wherever_it_asks,
        a_key_exchange_that_comes_again_uses_up_nothing_more,
    }
    directory_model {
        claims_and_publishes_behave_as_the_model,
        lists_behave_as_the_model,
    }
    sessions {
        an_account_is_known_once_registered,
        a_session_is_every_device_it_was_seen_to_be,
        subscriptions_are_kept_up_to_the_limit,
    }
    notices {
        a_notice_of_a_state_that_has_passed_is_moot,
        a_notice_waits_until_it_is_settled,
        a_notice_that_is_renewed_while_it_is_sent_is_sent_again,
        two_instances_never_take_the_same_notice,
    }
    history {
        each_change_is_one_entry_and_what_changes_nothing_is_none,
        a_new_label_is_a_change,
        a_history_begins_with_what_was_there_before,
        a_known_head_is_found_and_a_foreign_one_is_not,
        concurrent_changes_make_one_chain,
        former_identity_keys_stay_recorded,
        changes_of_one_day_are_bounded,
    }
    identities {
        nobody_gets_keys_of_two_identities,
        the_same_identity_again_is_no_change,
    }
    epochs {
        what_was_in_stock_before_a_restore_is_void,
        the_first_bundle_after_a_restore_says_what_was_there_before,
        a_device_that_the_restored_database_does_not_know_may_be_from_before,
        stock_is_made_void_in_batches_and_its_owners_are_told,
        a_doubted_database_hands_out_nothing_until_it_is_confirmed,
        the_progress_of_a_deployment_only_grows,
        an_epoch_that_begins_under_load_lets_no_older_prekey_through,
    }
    append {
        copies_come_back_as_they_went_in,
        a_local_message_is_one_body_and_two_copies,
        a_duplicate_is_stored_once,
        time_never_decreases_with_the_sequence,
        a_bad_batch_stores_nothing_of_it,
        a_reader_never_passes_a_copy_that_becomes_visible_later,
        batches_over_the_same_archives_do_not_deadlock,
    }
    paging {
        pages_go_both_ways_and_say_when_they_are_complete,
        unknown_ids_are_told,
        with_oneself_means_messages_to_oneself,
        a_page_is_bounded_in_bytes_but_never_empty,
        the_ends_are_the_oldest_and_the_newest,
        an_archive_answers_for_its_owner_only,
    }
    preferences {
        preferences_are_what_was_set,
        preferences_from_elsewhere_stay_behind_the_owner_s_own,
        preferences_are_applied_before_storing,
        preferences_concern_the_owner_s_copy_only,
    }
    retraction {
        a_retracted_message_is_a_tombstone_in_both_archives,
        a_retraction_takes_back_what_came_before_it,
        a_retraction_counts_although_nobody_keeps_it,
        a_message_is_taken_back_although_its_author_s_copy_is_gone,
    }
    cursors {
        a_cursor_moves_forward_only,
        listed_devices_without_a_cursor_are_shown,
        cursors_beyond_the_bound_are_forgotten,
    }
    dead_letters {
        a_letter_comes_back_as_it_went_in,
        a_message_that_the_database_refuses_can_be_stored_later,
    }
    retention {
        a_retention_run_is_dry_first_and_goes_on_where_it_was_stopped,
    }
    erase {
        everything_of_an_erased_account_goes_and_nothing_of_others,
        erasing_goes_on_where_it_was_stopped,
        shared_bodies_go_with_the_last_copy_whoever_comes_last,
        every_column_that_may_name_an_account_is_covered,
        an_export_holds_what_the_account_has,
    }
    paging_model {
        paging_behaves_as_a_plain_list,
    }
    lifecycle {
        a_device_without_a_bundle_is_due_until_it_has_one,
        an_unseen_device_is_due_only_while_another_is_seen,
        a_quarantined_device_leaves_the_list_and_a_sign_of_life_brings_it_back,
        a_device_quarantined_for_want_of_a_bundle_needs_one_to_come_back,
        a_list_that_names_a_quarantined_device_revives_it_and_one_that_leaves_it_out_does_not,
        a_removed_device_is_gone_and_its_tombstones_stay,
        due_devices_come_in_pages_that_miss_none,
        two_instances_take_each_step_once,
        a_long_pause_of_the_watch_begins_it_anew,
        bundles_of_unlisted_devices_are_bounded,
        devices_that_were_are_remembered_up_to_a_bound,
        devices_from_before_there_were_lives_count_as_seen_when_the_schema_came,
        what_an_older_program_lists_and_delists_confuses_nobody,
        whoever_shows_itself_while_it_is_quarantined_as_unseen_comes_back,
    }
    long_jids {
        jids_of_full_length_are_kept_and_found,
        requesters_of_full_length_are_told_apart,
    }
    lifecycle_model {
        directory_6_and_8_lives_behave_as_the_model,
        directory_8_a_dry_run_changes_nothing_and_says_what_would_be,
        directory_8_who_was_not_watched_gets_the_grace_period_first,
        a_session_that_the_database_has_forgotten_is_learned_again,
    }
    expiry {
        what_expires_is_hidden_at_the_instant,
        purging_leaves_placeholders_in_the_middle_and_trims_the_oldest_end,
        each_copy_and_message_that_goes_is_counted_once,
        a_body_lives_as_long_as_one_of_its_copies,
        sequence_numbers_and_ids_are_never_reused,
        a_page_says_what_expired_before_it,
        purges_are_bounded_and_two_at_once_are_safe,
    }
}
