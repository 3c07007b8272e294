// What a dashboard of ours may hold, in Grafana's own types. The test writes a dashboard as an
// object literal of type `OurDashboard` beside this file and has `tsc` look for members that are
// missing, misspelt, of the wrong type or of another panel.
import type {
  AnnotationQuery,
  Dashboard,
  DataSourceRef,
  FieldConfig,
  Panel,
  RowPanel,
  TableFieldOptions,
  TableOptions,
  VariableModel,
} from '@grafana/schema';
import type * as BarChart from '@grafana/schema/dist/esm/raw/composable/barchart/panelcfg/x/BarChartPanelCfg_types.gen';
import type * as Stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as TimeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// Enums as the values that JSON has in their place.
type Plain<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends Array<infer Item>
      ? Array<Plain<Item>>
      : { [Member in keyof T]: Plain<T[Member]> };

// `PrometheusDataQuery` of @grafana/prometheus, which is not to be had without all of Grafana's
// user interface.
type Query = {
  refId: string;
  datasource: DataSourceRef;
  expr: string;
  format: 'time_series' | 'table';
} & ({ instant: true } | { range: true; legendFormat: string });

type Link = { title: string; url: string; targetBlank: boolean };

type Override<Custom> =
  | { id: 'unit'; value: string }
  | { id: 'min'; value: number }
  | { id: 'decimals'; value: number }
  | { id: 'color'; value: NonNullable<FieldConfig['color']> }
  | { id: 'links'; value: Link[] }
  | { [Name in keyof Custom & string]: { id: `custom.${Name}`; value: Custom[Name] } }[keyof Custom & string];

type Transformation =
  | {
      id: 'groupingToMatrix';
      options: { rowField: string; columnField: string; valueField: string; emptyValue: 'null' | 'empty' };
    }
  | { id: 'merge'; options: Record<string, never> }
  | { id: 'filterFieldsByName'; options: { include: { names: string[] } } }
  | {
      id: 'organize';
      options: {
        excludeByName: Record<string, boolean>;
        indexByName: Record<string, number>;
        renameByName: Record<string, string>;
      };
    };

type OurPanel<Type, Options, Custom> = Omit<
  Panel,
  'type' | 'options' | 'fieldConfig' | 'targets' | 'transformations' | 'description' | 'gridPos' | 'id' | 'title'
> &
  Required<Pick<Panel, 'description' | 'gridPos' | 'id' | 'title'>> & {
    type: Type;
    options: Options;
    targets: Query[];
    transformations: Transformation[];
    fieldConfig: {
      defaults: Omit<FieldConfig, 'custom' | 'links'> & { unit: string; custom?: Custom };
      overrides: {
        matcher: { id: 'byName'; options: string };
        properties: Override<Required<Custom>>[];
      }[];
    };
  };

type AnyPanel =
  | OurPanel<'timeseries', Omit<TimeSeries.Options, 'timezone'>, Omit<TimeSeries.FieldConfig, 'index'>>
  | OurPanel<'barchart', BarChart.Options, BarChart.FieldConfig>
  | OurPanel<'stat', Stat.Options, Record<never, never>>
  | OurPanel<'table', TableOptions, TableFieldOptions>
  | RowPanel;

// The Prometheus source reads these beside what every annotation has.
type Annotation = AnnotationQuery<{ refId: string; expr: string }> & {
  titleFormat: string;
  textFormat: string;
  tagKeys: string;
};

type Variable = Omit<VariableModel, 'query'> & {
  query: string | { qryType: 1; query: string; refId: string };
};

export type OurDashboard = Plain<
  Omit<Dashboard, 'panels' | 'annotations' | 'templating' | 'id'> &
    Required<Pick<Dashboard, 'uid' | 'title' | 'description' | 'time'>> & {
      panels: AnyPanel[];
      annotations: { list: Annotation[] };
      templating: { list: Variable[] };
    }
>;
